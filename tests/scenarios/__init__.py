"""
Tests of whole flows, mostly in memory.
"""
