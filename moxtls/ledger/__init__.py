"""
The ledger: what is kept, and its writer.
"""
