"""
Fuzzers of the parsers of untrusted input: C{make fuzz}.
"""
