"""
Tests for L{moxtls.received}.
"""
