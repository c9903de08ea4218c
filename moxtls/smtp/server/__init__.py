"""
The SMTP server: a protocol engine without I/O, and a Twisted factory for it.
"""
