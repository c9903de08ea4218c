"""
Processes beside this one, for what would keep the reactor's thread from its
work: waiting for disks, and verifying signatures.
"""
