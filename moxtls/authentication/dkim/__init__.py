"""
DKIM signatures (RFC 6376): verification and signing.
"""
