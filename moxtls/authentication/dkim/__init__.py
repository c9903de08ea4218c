"""
dkim.
"""
