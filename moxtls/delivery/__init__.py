"""
From a message for a domain to what TLS did on the way.
"""
