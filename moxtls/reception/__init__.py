"""
Reception of mail from other hosts: authentication, DMARC enforcement and delivery
into local mailboxes.
"""
