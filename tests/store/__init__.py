"""
Tests for L{moxtls.store}.
"""
