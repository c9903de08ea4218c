"""
DNS answers that remember how far they can be trusted.
"""
