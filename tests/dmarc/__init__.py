"""
Tests for L{moxtls.dmarc}.
"""
