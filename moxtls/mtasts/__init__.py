"""
MTA-STS policies of recipient domains (RFC 8461).
"""
