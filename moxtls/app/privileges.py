# -*- test-case-name: tests.cli.test_users -*-
"""
Switches commands from root to the user who owns the server's files. A file made by root
would be unusable for a server that runs as another user.
"""

from __future__ import annotations

import os
import pwd

ROOT = 0


def userName(uid: int) -> str:
    """
    The login name of a user; the number if it has none.
    """
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def becomeUser(uid: int, gid: int) -> None:
    """
    Drop the privileges of root permanently.

    @param gid: The group of the files of C{uid}.

    @raise OSError: The system doesn't allow it.
    """
    try:
        name, home = pwd.getpwuid(uid).pw_name, pwd.getpwuid(uid).pw_dir
    except KeyError:
        name, home = "", "/"
    if gid == ROOT and name:
        # The owner was changed with chown, without a group.
        gid = pwd.getpwuid(uid).pw_gid
    os.setgroups(os.getgrouplist(name, gid) if name else [gid])
    os.setgid(gid)
    os.setuid(uid)
    # libpq looks for its files there, and fails without access.
    os.environ["HOME"] = home
