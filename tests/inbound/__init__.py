"""
Tests for L{moxtls.inbound}.
"""
