"""
TLS reports (RFC 8460): recording, composing, parsing.
"""
