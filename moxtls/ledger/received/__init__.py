"""
The tables and the store of received reports.
"""
