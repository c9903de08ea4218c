"""
TLS reports and DMARC checks for clients and servers made with C{twisted.mail.smtp}.
"""
