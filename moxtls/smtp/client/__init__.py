"""
client.
"""
