"""
The queue of outbound messages: spool, retries, DSNs and delivery status.
"""
