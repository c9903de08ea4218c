"""
Tests for L{moxtls.lab}.
"""
