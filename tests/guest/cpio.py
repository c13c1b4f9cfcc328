"""A writer for the `newc` cpio archives the Linux kernel unpacks as its initial file system.

The kernel unpacks several archives laid end to end, later ones over earlier ones, so the guest's programs live in one archive
built once, its kernel modules in another, and each run only adds a small one with its scenario. Writing them here rather than
with cpio(1) needs neither root (for owner 0) nor a staging directory.

Format: Documentation/driver-api/early-userspace/buffer-format.rst in the Linux tree.
"""

from __future__ import annotations

import stat
from typing import BinaryIO


class Archive:
    """Writes one archive to `out`. Directories on the way to an entry are added by themselves, once."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._written = 0
        self._inode = 1
        self._directories: set[str] = set()

    def file(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Adds a regular file at `path`, relative to the root and without a leading slash."""
        self._parents(path)
        self._entry(path, stat.S_IFREG | mode, data)

    def symlink(self, path: str, target: str) -> None:
        """Adds a symbolic link at `path` that holds `target`."""
        self._parents(path)
        self._entry(path, stat.S_IFLNK | 0o777, target.encode())

    def directory(self, path: str, mode: int = 0o755) -> None:
        """Adds the directory `path`."""
        if path in self._directories:
            return
        self._parents(path)
        self._directories.add(path)
        self._entry(path, stat.S_IFDIR | mode, b"")

    def close(self) -> None:
        """Writes the trailer. The next archive may follow directly: the length is a multiple of four."""
        self._inode = 0
        self._entry("TRAILER!!!", 0, b"")

    def _parents(self, path: str) -> None:
        parts = path.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            self.directory("/".join(parts[:depth]))

    def _entry(self, path: str, mode: int, data: bytes) -> None:
        name = path.encode() + b"\0"
        fields = (
            self._inode,
            mode,
            0,  # uid
            0,  # gid
            1,  # links
            0,  # modification time: a fixed one keeps archives reproducible
            len(data),
            0,  # device of the file, major and minor
            0,
            0,  # device it stands for, major and minor
            0,
            len(name),
            0,  # checksum, unused by newc
        )
        self._inode += 1
        self._put(b"070701" + b"".join(b"%08x" % field for field in fields) + name)
        self._pad()
        self._put(data)
        self._pad()

    def _put(self, data: bytes) -> None:
        self._out.write(data)
        self._written += len(data)

    def _pad(self) -> None:
        self._put(b"\0" * (-self._written % 4))
