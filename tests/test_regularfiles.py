"""
Tests for L{moxtls.regularfiles}.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from moxtls.regularfiles import NotRegularFile, checkedFile, openRegular, readRegular


class RegularTests(SynchronousTestCase):
    """
    Tests for L{openRegular}, L{readRegular} and L{checkedFile}.
    """

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.file = self.folder / "file"
        self.file.write_bytes(b"text")

    def test_regular(self) -> None:
        """
        Files are read and written as ever, and those that aren't there are missing.
        """
        self.assertEqual(readRegular(self.file, 4), b"text")
        self.assertEqual(checkedFile(self.file), self.file)
        descriptor = openRegular(self.file, os.O_WRONLY | os.O_APPEND)
        os.write(descriptor, b"!")
        os.close(descriptor)
        error = self.assertRaises(OSError, readRegular, self.file, 4)
        self.assertEqual(error.errno, errno.EFBIG)
        missing = self.folder / "missing"
        self.assertRaises(FileNotFoundError, readRegular, missing, 4)
        self.assertEqual(checkedFile(missing), missing)

    def test_others(self) -> None:
        """
        Other kinds of files aren't opened, without blocking.
        """
        pipe, link = self.folder / "pipe", self.folder / "link"
        os.mkfifo(pipe)
        link.symlink_to(self.file)
        for path in (pipe, link, self.folder, Path("/dev/zero")):
            for flags in (os.O_RDONLY, os.O_WRONLY):
                self.assertRaises(NotRegularFile, openRegular, path, flags)
        for path in (pipe, Path("/dev/zero")):
            self.assertRaises(NotRegularFile, checkedFile, path)
        self.assertEqual(checkedFile(link), link)
