"""
Tests for L{moxtls.received.analysis}.
"""
