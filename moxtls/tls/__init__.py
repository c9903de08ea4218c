"""
TLS of SMTP sessions: verification, DANE and result types.
"""
