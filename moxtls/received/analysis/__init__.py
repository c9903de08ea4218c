"""
What received reports mean: answers, explanations and what domains are ready for.
"""
