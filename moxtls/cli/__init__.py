"""
The C{moxtls} command.
"""
