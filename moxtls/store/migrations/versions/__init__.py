"""
One module per change.
"""
