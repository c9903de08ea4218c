"""
Delivery of mail to the hosts of recipient domains.
"""
