"""
Reports of other hosts about mail of this one: their reception, storage and evaluation.
"""
