"""
Tests for L{moxtls.reporting}.
"""
