"""
Reads reports in any input, in worker processes.
"""
