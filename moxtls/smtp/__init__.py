"""
The SMTP protocol, with SASL authentication: engines without I/O, and thin Twisted
shells around them.
"""
