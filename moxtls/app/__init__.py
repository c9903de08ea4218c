"""
The composition root: builds and runs the server.
"""
