"""
authentication.
"""
