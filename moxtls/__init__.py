"""
Mail transfer in Twisted, and the feedback loop of its transport security.
"""

__version__ = "0.2.0"
