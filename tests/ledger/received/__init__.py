"""
Tests for L{moxtls.ledger.received}.
"""
