"""
What all kinds of outgoing report share.
"""
