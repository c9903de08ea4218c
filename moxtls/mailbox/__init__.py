"""
Where mail for this host ends.
"""
