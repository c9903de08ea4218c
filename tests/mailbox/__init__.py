"""
Tests for L{moxtls.mailbox}.
"""
