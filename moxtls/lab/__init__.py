"""
A small internet on loopback.
"""
