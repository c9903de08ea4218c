"""
The ways by which reports arrive: they are judged and stored.
"""
