"""
DNS lookups with the DNSSEC status of every answer.
"""
