"""
What strangers send, made up by machine: C{make fuzz}.
"""
