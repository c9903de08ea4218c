"""
Tests for L{moxtls.cli}.
"""
