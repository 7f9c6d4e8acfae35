"""What replies say of inodes, in pyfuse3's form."""

from __future__ import annotations

import stat

from pyfuse3 import EntryAttributes

from fusefs.inodes import Inode
from fusefs.tree.node import BLOCK, FRESH, Attributes, Directory, File, Symlink

# What stat(2) calls each kind of node.
_KINDS = {Directory: stat.S_IFDIR, Symlink: stat.S_IFLNK, File: stat.S_IFREG}


def fill(entry: EntryAttributes, number: int, attributes: Attributes) -> None:
    """What the kernel is told of an inode."""
    entry.st_ino = number
    entry.generation = 0
    entry.entry_timeout = FRESH
    entry.attr_timeout = FRESH
    entry.st_mode = attributes.mode
    entry.st_nlink = attributes.nlink
    entry.st_uid = attributes.uid
    entry.st_gid = attributes.gid
    entry.st_rdev = 0
    entry.st_size = attributes.size
    entry.st_blksize = BLOCK
    entry.st_blocks = -(-attributes.size // 512)
    entry.st_atime_ns = attributes.atime_ns
    entry.st_mtime_ns = attributes.mtime_ns
    entry.st_ctime_ns = attributes.ctime_ns


def fill_unknown(entry: EntryAttributes, inode: Inode) -> None:
    """What a listing says of a child whose attributes cannot be had: who asks for them is told
    why, and the other children are listed all the same."""
    kind = next(mode for node, mode in _KINDS.items() if isinstance(inode.node, node))
    fill(entry, inode.number, Attributes(kind, 0, 0, 0, 0, 0))
    entry.entry_timeout = entry.attr_timeout = 0


def fill_dot(entry: EntryAttributes, number: int) -> None:
    """`.` and `..` of a listing: the kernel takes type and number alone."""
    entry.st_ino = number
    entry.st_mode = stat.S_IFDIR
