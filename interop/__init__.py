"""
moxtls against the software of others; C{make interop} runs all of it.
"""
