"""
Mail that was accepted and has not left yet.
"""
