"""
Tests for L{moxtls.smtp}.
"""
