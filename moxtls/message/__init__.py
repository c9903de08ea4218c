"""
message.
"""
