"""What replies say of inodes, in pyfuse3's form."""

from __future__ import annotations

import errno
import logging
import os
import stat

import pyfuse3
from pyfuse3 import EntryAttributes, RequestContext

from fusefs.inodes import Inode, InodeTable
from fusefs.listing import Found, Listing
from fusefs.plain_entries import PlainEntry
from fusefs.requests import caller_of
from fusefs.tree.alike import Alike, StandIn
from fusefs.tree.node import BLOCK, FRESH, Attributes, Directory, File, Node, Symlink

log = logging.getLogger(__name__)

# What stat(2) calls each kind of node.
_KINDS = {Directory: stat.S_IFDIR, Symlink: stat.S_IFLNK, File: stat.S_IFREG}
# So many names are listed in one go: others wait so long.
_TOGETHER = 64


def entry_of(
    inode: Inode, entry: EntryAttributes | None = None, ctx: RequestContext | None = None
) -> EntryAttributes:
    """What the kernel is told of an inode now, in `entry` if one is given; `ctx` is who asks, if
    that is known."""
    entry = EntryAttributes() if entry is None else entry
    attributes = inode.attributes()
    inode.tell(attributes)
    _fill(entry, inode.number, attributes)
    if attributes.known_by is not None:
        entry.attr_timeout = 0  # each who asks is told what is for them
        if ctx is None or not attributes.are_known_by(caller_of(ctx)):
            entry.st_size = entry.st_blocks = 0
            entry.st_mtime_ns = entry.st_ctime_ns = attributes.atime_ns
    if inode.known.private:
        entry.entry_timeout = 0
    return entry


def _fill(entry: EntryAttributes, number: int, attributes: Attributes) -> None:
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


def _fill_unknown(entry: EntryAttributes, inode: Inode) -> None:
    """What a listing says of a child whose attributes cannot be had: who asks for them is told
    why, and the other children are listed all the same."""
    kind = next(mode for node, mode in _KINDS.items() if isinstance(inode.node, node))
    _fill(entry, inode.number, Attributes(kind, 0, 0, 0, 0, 0))
    entry.entry_timeout = entry.attr_timeout = 0


class DirectoryReply:
    """A reply to who reads a directory: what a listing has, as long as there is room."""

    def __init__(
        self,
        token: pyfuse3.ReaddirToken,
        inodes: InodeTable,
        listing: Listing,
        plain: PlainEntry | None,
    ) -> None:
        """`plain` is for plain entries, if there are any."""
        self._token = token
        self._inodes = inodes
        self._listing = listing
        self._plain = plain
        self._entry = EntryAttributes()
        self._referred: list[Inode] = []

    def add(self, found: Found) -> bool:
        """Add what the listing has next, or some of it, or leave it out because it is gone by now;
        whether there was room. Raises `gone()` when all of it is."""
        try:
            if isinstance(found, Alike):
                return self._add_alike(found)
            name, child = found
            if isinstance(child, int):
                return self._add_dot(name, child)
            return self._add_node(name, child)
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            if isinstance(found, Alike):
                found.origin.shared()  # or else it is not one of them that is gone
            self._listing.skip()
            return True

    def take_back(self) -> None:
        """The reply is an error: the kernel hears of none of these."""
        for inode in self._referred:
            self._inodes.forget(inode.number, 1)

    def _add(self, name: str, entry: EntryAttributes) -> bool:
        """Add a name; whether there was room."""
        position = self._listing.position + 1
        if not pyfuse3.readdir_reply(self._token, os.fsencode(name), entry, position):
            return False
        self._listing.advance()
        return True

    def _add_dot(self, name: str, number: int) -> bool:
        # The kernel takes type and number alone.
        self._entry.st_ino = number
        self._entry.st_mode = stat.S_IFDIR
        return self._add(name, self._entry)

    def _add_node(self, name: str, child: Node) -> bool:
        inode = self._inodes.enter(child)
        try:
            self._fill_listed(name, inode)
            if not self._add(name, self._entry):
                return False
            inode.lookups += 1
            self._referred.append(inode)
            return True
        finally:
            self._inodes.release(inode)

    def _fill_listed(self, name: str, inode: Inode) -> None:
        """Fill in the attributes of a child. Raises `gone()`; any other trouble is its own."""
        try:
            entry_of(inode, self._entry)
        except OSError as error:
            if error.errno == errno.ESTALE:
                raise
            log.debug("%s: %s", name, error)
            _fill_unknown(self._entry, inode)
        except Exception:
            log.exception("the attributes of %r cannot be had", name)
            _fill_unknown(self._entry, inode)

    def _add_alike(self, found: Alike) -> bool:
        plain, most = self._listing.plain(found.names[0])
        most = min(most, _TOGETHER)
        if plain and self._plain:
            return self._add_plain(found, most, self._plain)
        if stand_ins := self._filled_stand_ins(found, most):
            return self._add_stand_ins(found, stand_ins)
        return self._add_node(found.names[0], found.first())

    def _add_plain(self, found: Alike, most: int, plain: PlainEntry) -> bool:
        """Add the first `most` as plain entries."""
        kind = found.origin.file_type
        numbers = self._inodes.numbers(found.identities(most))
        reply, token, position = pyfuse3.readdir_reply, self._token, self._listing.position
        added = 0
        for name, number in zip(found.names, numbers, strict=False):
            entry = plain.fill(number, kind)
            if not reply(token, os.fsencode(name), entry, position + added + 1):
                break
            added += 1
        self._listing.advance(added)
        return added == len(numbers)

    def _filled_stand_ins(self, found: Alike, most: int) -> list[StandIn]:
        """What stands in for the first `most`, once what they have in common is filled in; nothing
        where each has to be asked for itself. Raises `gone()`."""
        try:
            shared = found.origin.shared()
            if shared.known_by is not None:
                return []
            if stand_ins := found.stand_ins(most):
                _fill(self._entry, 0, shared)
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.ESTALE:
                raise
            log.debug("one of %r and others cannot be shown", found.names[0], exc_info=True)
            return []
        return stand_ins

    def _add_stand_ins(self, found: Alike, stand_ins: list[StandIn]) -> bool:
        """Add the first ones with their attributes."""
        entry, inodes = self._entry, self._inodes
        identities = found.identities(len(stand_ins))
        numbers = inodes.numbers(identities)
        reply, token, position = pyfuse3.readdir_reply, self._token, self._listing.position
        referred = self._referred
        added = 0
        for name, stand_in, identity, number in zip(
            found.names, stand_ins, identities, numbers, strict=False
        ):
            inode = inodes.enter_as(stand_in, identity, number)
            inode.lookups += 1
            referred.append(inode)
            known = inode.known
            seen = stand_in if known is stand_in else known.sighting or stand_in
            size, mtime_ns = seen.size, seen.mtime_ns
            entry.st_ino = inode.number
            entry.st_size = size
            entry.st_blocks = -(-size // 512)
            entry.st_mtime_ns = entry.st_ctime_ns = mtime_ns
            if not reply(token, os.fsencode(name), entry, position + added + 1):
                inodes.forget(referred.pop().number, 1)
                break
            inode.size, inode.mtime_ns = size, mtime_ns
            added += 1
        self._listing.advance(added)
        return added == len(stand_ins)
