"""
The ledger: persistent stores of results, evaluations, reports and policies in SQL.
"""
