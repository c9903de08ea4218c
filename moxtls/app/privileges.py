# -*- test-case-name: tests.cli.test_users -*-
"""
Runs commands of root as the user whose files they work on: a file of root's
among those of a server that runs as another user is a file which that server
can't use.
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
    Give up the privileges of root for good.

    @param gid: The group of what C{uid} has made.

    @raise OSError: The system doesn't allow it.
    """
    try:
        name, home = pwd.getpwuid(uid).pw_name, pwd.getpwuid(uid).pw_dir
    except KeyError:
        name, home = "", "/"
    if gid == ROOT and name:
        # Made by hand: chown without a group.
        gid = pwd.getpwuid(uid).pw_gid
    os.setgroups(os.getgrouplist(name, gid) if name else [gid])
    os.setgid(gid)
    os.setuid(uid)
    # libpq looks for its files there, and fails if it may not.
    os.environ["HOME"] = home
