"""
The command moxtls report.
"""
