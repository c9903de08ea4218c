"""
Tests for L{moxtls.cli.reports.commands}.
"""
