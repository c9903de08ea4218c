"""
Internet messages (RFC 5322, MIME): headers, parts, addresses and trace fields.
"""
