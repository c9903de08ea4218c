"""
Tests for L{moxtls.ledger}.
"""
