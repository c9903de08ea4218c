"""
Reports that others send us.
"""
