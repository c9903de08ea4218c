"""
Tests for L{moxtls.outbound}.
"""
