"""
Tests for L{moxtls.tlsrpt}.
"""
