"""
Reception of mail from other hosts and of submissions: authentication, DMARC enforcement
and delivery into local mailboxes.
"""
