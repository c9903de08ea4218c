"""
How fast moxtls is, each time beside something known that does the same on the
same machine in the same minutes.

C{python -m bench} runs all of it.  Nothing here is a test: no figure is right
or wrong.
"""
