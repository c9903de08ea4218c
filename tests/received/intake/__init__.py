"""
Tests for L{moxtls.received.intake.intake}.
"""
