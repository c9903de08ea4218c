"""
The SMTP client: a protocol engine without I/O, and sessions over Twisted transports.
"""
