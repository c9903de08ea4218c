"""
Tests for L{moxtls.mtasts}.
"""
