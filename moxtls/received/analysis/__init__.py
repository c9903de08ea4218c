"""
Analysis of received reports: answers, explanations and readiness of domains.
"""
