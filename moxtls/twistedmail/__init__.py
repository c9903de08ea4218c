"""
twistedmail.
"""
