"""
A simulated internet on loopback: signed zones, policy hosts, good and bad destinations.
"""
