"""
Tests for L{moxtls.queue}.
"""
