"""
Tests for L{moxtls.worker}.
"""
