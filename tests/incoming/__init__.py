"""
Tests for L{moxtls.incoming}.
"""
