"""
Tests for L{moxtls.received.reading}.
"""
