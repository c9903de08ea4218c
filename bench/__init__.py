"""
Benchmarks of moxtls, each compared with a known program on the same machine in the
same minutes: C{python -m bench} runs all. No figure is right or wrong.
"""
