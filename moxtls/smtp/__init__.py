"""
The SMTP protocol: bytes in, events out, and thin Twisted shells.
"""
