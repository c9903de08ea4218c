"""
Tests for L{moxtls.workers}.
"""
