"""
Interoperability checks of moxtls with the software of others; C{make interop} runs
all of them.
"""
