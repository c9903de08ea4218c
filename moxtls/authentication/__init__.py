"""
Message authentication: iprev, SPF, DKIM, and their results in header fields.
"""
