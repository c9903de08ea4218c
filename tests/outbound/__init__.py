"""
Tests for L{moxtls.delivery}.
"""
