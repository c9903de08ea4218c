"""
DMARC: evaluation of messages, aggregate reports and failure reports (RFC 9989, RFC
9990, RFC 9991).
"""
