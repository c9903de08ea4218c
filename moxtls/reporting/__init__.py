"""
Outgoing reports of all kinds.
"""
