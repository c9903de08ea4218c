"""
Tests for L{moxtls.dns}.
"""
