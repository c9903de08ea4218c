"""
Whole flows, in memory.
"""
