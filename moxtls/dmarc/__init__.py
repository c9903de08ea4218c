"""
What domains want done with mail in their name, what it came to, and the
reports about it (RFC 9989, RFC 9990, RFC 9991).
"""
