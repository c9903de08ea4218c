"""
Tests for L{moxtls.reception}.
"""
