"""
Worker processes, for work that would block the reactor: writes to the disk, and
signature verification.
"""
