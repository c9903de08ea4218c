"""
server.
"""
