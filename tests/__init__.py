"""
Tests for L{moxtls}.
"""
