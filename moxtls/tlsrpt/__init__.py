"""
From TLS outcomes to RFC 8460 reports.
"""
