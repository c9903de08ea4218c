"""
Mailboxes of local accounts: Maildir++ folders, or a server reached over LMTP.
"""
