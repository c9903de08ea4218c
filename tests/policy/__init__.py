"""
Tests for L{moxtls.policy}.
"""
