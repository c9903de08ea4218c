"""
What a receiving domain asks of those who deliver to it.
"""
