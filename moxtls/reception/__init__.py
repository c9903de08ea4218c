"""
Mail from outside: what is known about where it comes from, and what becomes
of it.
"""
