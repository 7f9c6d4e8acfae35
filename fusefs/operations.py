"""FUSE requests, answered by the nodes of the tree. Only here do pyfuse3 and the tree meet."""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import os
import select
from collections.abc import Sequence

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileInfo, RequestContext

from fusefs import waiting
from fusefs.bpf.bpffs import RenameFlags
from fusefs.bpf.credentials import Caller
from fusefs.created import Created
from fusefs.echoes import Echoes
from fusefs.inodes import Inode, InodeTable
from fusefs.listing import Listing
from fusefs.opened import Opened, OpenFile
from fusefs.plain_entries import plain_entry
from fusefs.repeats import Repeats
from fusefs.replies import DirectoryReply, entry_of
from fusefs.requests import Shown, caller_of, check_rights, request
from fusefs.tree.mirror import Mirror
from fusefs.tree.node import (
    Absent,
    Change,
    Directory,
    File,
    Handle,
    Node,
    Symlink,
    refusal,
    wants_write,
)

log = logging.getLogger(__name__)

# What poll(2) says of an ordinary file: DEFAULT_POLLMASK, linux/poll.h.
_POLLED = select.POLLIN | select.POLLOUT | select.POLLRDNORM | select.POLLWRNORM
# What is wanted to make, remove or rename something in a directory.
_CHANGE = os.W_OK | os.X_OK


class Operations(pyfuse3.Operations):
    """The handlers of a mount of `root`."""

    supports_dot_lookup = False
    enable_writeback_cache = False

    def __init__(self, root: Mirror, mountpoint: str) -> None:
        super().__init__()
        self.root = root
        self._polls: waiting.Polls  # since `start`
        self._inodes = InodeTable(root)
        self._echoes = Echoes(mountpoint, self._inodes.node)
        self._opened = Opened()
        self._holdings = self._opened.holdings
        self._created = Created()
        self._repeats = Repeats()
        self._plain = plain_entry()

    def start(self, nursery: trio.Nursery) -> None:
        """What waits for something that no request waits for does it in `nursery`. Called before
        the first request."""
        self._polls = waiting.Polls(nursery)
        self._echoes.start(nursery)
        kept = self.root.kept
        kept.on_first = lambda: nursery.start_soon(waiting.let_go, kept)

    # Inodes

    def _inode(self, number: int) -> Inode:
        return self._inodes[number]

    def _directory(self, number: int, ctx: RequestContext, wanted: int) -> tuple[Directory, Caller]:
        """A directory, and who asks, if they may do what is `wanted` in it (see `check_rights`)."""
        node, caller = self._inode(number).node, caller_of(ctx)
        if not isinstance(node, Directory):
            raise refusal(errno.ENOTDIR)
        if node.roots and not caller.is_root:
            raise refusal(errno.EACCES)
        check_rights(node, caller, ctx, wanted)
        return node, caller

    def _referred(self, node: Node, ctx: RequestContext) -> EntryAttributes:
        """The attributes of a node that the kernel is about to refer to, for who asks."""
        inode = self._inodes.enter(node)
        try:
            entry = entry_of(inode, ctx=ctx)
        except BaseException:
            self._inodes.release(inode)
            raise
        inode.lookups += 1
        return entry

    @request
    async def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        (parent, caller), child = self._directory(parent_inode, ctx, os.X_OK), os.fsdecode(name)
        if (before := self._echoes.lookup(ctx.pid, parent_inode, child)) is not None:
            return self._referred(before, ctx)
        for listing in self._opened.listings_of(parent_inode):
            listing.looked_up(child)
        try:
            entry = self._looked_up(parent, child, caller, ctx)
        except FileNotFoundError:
            if (created := self._created.find(parent_inode, name)) is None:
                raise
            entry = self._referred(created.node, ctx)
            entry.entry_timeout = 0
            return entry
        self._repeats.found(entry.st_ino)
        return entry

    def _looked_up(
        self, parent: Directory, child: str, caller: Caller, ctx: RequestContext
    ) -> EntryAttributes:
        """The attributes of a child. Raises FileNotFoundError."""
        # It may go before they can be told, and come again.
        for _ in range(2):
            node = parent.lookup_by(child, caller)
            try:
                return self._referred(node, ctx)
            except OSError as error:
                if error.errno != errno.ESTALE:
                    raise
        raise refusal(errno.ENOENT)

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        # Nobody waits for an answer, and pyfuse3 takes none, not even an errno.
        try:
            for number, lookups in inode_list:
                self._inodes.forget(number, lookups)
        except Exception:
            log.exception("%s failed", Shown("forget", (inode_list,)))

    @request
    async def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        try:
            return entry_of(self._inode(inode), ctx=ctx)
        except OSError as error:
            self._check_repeated(error, inode, ctx)
            raise

    def _check_repeated(self, error: OSError, inode: int, ctx: RequestContext) -> None:
        """Raise FileNotFoundError when the kernel would not repeat once more what is gone."""
        if isinstance(error, Absent) and self._repeats.gone(ctx.pid, inode):
            raise refusal(errno.ENOENT) from error

    @request
    async def setattr(
        self,
        inode: int,
        attr: EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        node = self._inode(inode).node
        change = Change(
            mode=attr.st_mode if fields.update_mode else None,
            uid=attr.st_uid if fields.update_uid else None,
            gid=attr.st_gid if fields.update_gid else None,
            size=attr.st_size if fields.update_size else None,
            atime_ns=attr.st_atime_ns if fields.update_atime else None,
            mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
        )
        if change.size is not None and fh is not None:
            self._file(fh).truncate(change.size)
        else:
            node.change(change, caller_of(ctx))
        return entry_of(self._inode(inode), ctx=ctx)

    @request
    async def readlink(self, inode: int, ctx: RequestContext) -> bytes:
        node = self._inode(inode).node
        if not isinstance(node, Symlink):
            raise refusal(errno.EINVAL)
        return os.fsencode(node.target_for(caller_of(ctx)))

    @request
    async def getxattr(self, inode: int, name: bytes, ctx: RequestContext) -> bytes:
        if not name.startswith(b"user."):
            raise refusal(errno.EOPNOTSUPP)  # access lists, labels, capabilities
        extended = self._inode(inode).node.extended()
        try:
            return extended[os.fsdecode(name)]
        except KeyError:
            raise refusal(errno.ENODATA) from None

    @request
    async def listxattr(self, inode: int, ctx: RequestContext) -> list[bytes]:
        node = self._inode(inode).node
        if not node.has_listed_attributes:
            raise refusal(errno.EOPNOTSUPP)
        return [os.fsencode(name) for name in node.extended()]

    @request
    async def statfs(self, ctx: RequestContext) -> pyfuse3.StatvfsData:
        told = self.root.statvfs()
        data = pyfuse3.StatvfsData()
        data.f_bsize, data.f_frsize, data.f_blocks = told.f_bsize, told.f_frsize, told.f_blocks
        data.f_bfree, data.f_bavail, data.f_files = told.f_bfree, told.f_bavail, told.f_files
        data.f_ffree, data.f_favail = told.f_ffree, told.f_favail
        data.f_namemax = told.f_namemax
        return data

    # Directories

    @request
    async def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: RequestContext
    ) -> EntryAttributes:
        (parent, caller), child = self._directory(parent_inode, ctx, _CHANGE), os.fsdecode(name)
        if (made := self._echoes.made(ctx.pid, parent_inode, child)) is not None:
            return self._referred(made, ctx)
        node = parent.mkdir(child, mode, caller)
        self._echoes.made_here(parent_inode, child)
        return self._made(parent, child, node, caller, ctx)

    @request
    async def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: RequestContext
    ) -> EntryAttributes:
        raise refusal(errno.EPERM)

    @request
    async def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: RequestContext
    ) -> EntryAttributes:
        (parent, caller), child = self._directory(parent_inode, ctx, _CHANGE), os.fsdecode(name)
        if (made := self._echoes.made(ctx.pid, parent_inode, child)) is not None:
            return self._referred(made, ctx)
        node = parent.symlink(child, os.fsdecode(target), caller)
        self._echoes.made_here(parent_inode, child)
        return self._made(parent, child, node, caller, ctx)

    def _made(
        self, parent: Directory, name: str, node: Node, caller: Caller, ctx: RequestContext
    ) -> EntryAttributes:
        """The attributes of what was made; it is taken back if they cannot be had. Who has set a
        slot so has set it."""
        try:
            return self._referred(node, ctx)
        except BaseException:
            if isinstance(parent, Mirror):
                remove = parent.unlink if isinstance(node, Symlink) else parent.rmdir
                with contextlib.suppress(OSError):
                    remove(name, caller)
            raise

    @request
    async def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: RequestContext
    ) -> EntryAttributes:
        raise refusal(errno.EPERM)

    @request
    async def unlink(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        (parent, caller), child = self._directory(parent_inode, ctx, _CHANGE), os.fsdecode(name)
        parent.unlink(child, caller)
        self._removed(parent_inode)
        self._echoes.made_here(parent_inode, child)

    @request
    async def rmdir(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        (parent, caller), child = self._directory(parent_inode, ctx, _CHANGE), os.fsdecode(name)
        if self._echoes.removed(ctx.pid, parent_inode, child):
            return
        parent.rmdir(child, caller)
        self._echoes.made_here(parent_inode, child)

    @request
    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: RequestContext,
    ) -> None:
        old, new = os.fsdecode(name_old), os.fsdecode(name_new)
        to, caller = self._directory(parent_inode_new, ctx, _CHANGE)
        parent, _ = self._directory(parent_inode_old, ctx, _CHANGE)
        if identity := parent.rename(old, to, new, RenameFlags(flags), caller):
            self._inodes.renamed(identity)
        self._removed(parent_inode_old)
        # The kernel tells an exchange as a rename there and one back.
        for _ in range(2 if flags & RenameFlags.EXCHANGE else 1):
            self._echoes.made_here(parent_inode_old, old)
            self._echoes.made_here(parent_inode_new, new)

    def _removed(self, directory: int) -> None:
        """A name in a directory is there no more."""
        for listing in self._opened.listings_of(directory):
            listing.expire()

    @request
    async def opendir(self, inode: int, ctx: RequestContext) -> int:
        directory, caller = self._directory(inode, ctx, os.R_OK)
        self._holdings.check_open(caller)
        directory.enter()
        if isinstance(directory, Mirror):
            self._echoes.watch(inode, directory)
        return self._opened.add_listing(Listing(directory, inode, caller, ctx.pid), caller)

    @request
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        listing = self._opened.listing(fh)
        await listing.seek(start_id)
        self.root.turn()
        listing.begin()
        reply = DirectoryReply(token, self._inodes, listing, self._plain)
        try:
            while (found := await listing.next_of_reply()) is not None:
                if not reply.add(found):
                    return
                if listing.overdue():
                    await trio.lowlevel.checkpoint()
                    self.root.turn()
        except BaseException:
            reply.take_back()
            raise

    @request
    async def releasedir(self, fh: int) -> None:
        self._opened.end_listing(fh)

    # Files

    def _file(self, fh: int) -> Handle:
        return self._opened.file(fh).handle

    def _open(self, inode: Inode, flags: int, ctx: RequestContext) -> int:
        """Open the file of an inode; the file handle."""
        if not isinstance(inode.node, File):
            raise refusal(errno.EISDIR)
        caller = caller_of(ctx)
        self._holdings.check_open(caller)
        handle = inode.node.open(flags, caller)
        inode.opened()
        return self._opened.add_file(OpenFile(handle, inode, ctx.pid), caller)

    def _open_created(self, inode: Inode, flags: int, ctx: RequestContext) -> int:
        """The same for one that somebody else may have created, and has not made yet. It is not
        there for who reads; of those who write, any may make it."""
        if inode not in self._created:
            return self._open(inode, flags, ctx)
        try:
            return self._open(inode, flags | (os.O_CREAT if wants_write(flags) else 0), ctx)
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            if not wants_write(flags):
                raise refusal(errno.ENOENT) from error
            self._created.end_all(inode)
            raise

    def _close(self, fh: int) -> None:
        file = self._opened.end_file(fh)
        file.inode.closed()
        self._created.end(fh)
        self._polls.end(fh)
        file.handle.close()

    @request
    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        try:
            opened = await self._opened_file(inode, flags, ctx)
        except OSError as error:
            self._check_repeated(error, inode, ctx)
            raise
        self._repeats.opened(ctx.pid)
        return opened

    async def _opened_file(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        known = self._inode(inode)
        await waiting.prepared(known.node, ctx.pid)
        self.root.turn()
        fh = self._open_created(known, flags, ctx)
        try:
            await waiting.begun(self._file(fh), functools.partial(self._holdings.grow, fh))
            self.root.turn()
            # What the kernel still knows from the lookup may be another value's size.
            if known.tell(known.attributes()):
                pyfuse3.invalidate_inode(inode, attr_only=True)
        except BaseException:
            self._close(fh)
            raise
        return FileInfo(fh=fh, direct_io=True, keep_cache=False)

    @request
    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        parent, caller = self._directory(parent_inode, ctx, _CHANGE)
        self._holdings.check_open(caller)  # before anything is made
        file = parent.create(os.fsdecode(name), mode, caller)
        inode = self._inodes.enter(file)
        try:
            fh = self._open(inode, flags | os.O_CREAT, ctx)
            try:
                entry = entry_of(inode, ctx=ctx)
            except BaseException:
                self._close(fh)
                raise
            entry.entry_timeout = 0  # the name is listed only once a value is there
            inode.lookups += 1
            self._created.add(fh, self._file(fh), parent_inode, name, inode)
        finally:
            self._inodes.release(inode)
        return FileInfo(fh=fh, direct_io=True, keep_cache=False), entry

    @request
    async def read(self, fh: int, off: int, size: int) -> bytes:
        file = self._opened.file(fh)
        if not file.handle.held:
            self._holdings.check_more(fh)
        data = await waiting.read(file.handle, off, size, file.client)
        self._holdings.note(fh, file.handle)
        return data

    @request
    async def poll(
        self, inode: int, fh: int, poll_handle: pyfuse3.PollHandle | None, ctx: RequestContext
    ) -> int:
        handle = self._file(fh)
        if handle.awaited is None:
            return _POLLED
        if handle.ready:
            return select.POLLIN | select.POLLRDNORM
        if poll_handle is not None:
            self._polls.add(fh, handle, poll_handle)
        return 0

    @request
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        handle = self._file(fh)
        self._holdings.check_more(fh)
        try:
            return await waiting.write(handle, off, bytes(buf))
        finally:
            self._holdings.note(fh, handle)

    @request
    async def flush(self, fh: int) -> None:
        await self._flush(fh)

    @request
    async def fsync(self, fh: int, datasync: bool) -> None:
        await self._flush(fh)

    async def _flush(self, fh: int) -> None:
        handle = self._file(fh)
        try:
            await waiting.flushed(handle)
        finally:
            self._holdings.note(fh, handle)

    @request
    async def release(self, fh: int) -> None:
        self._close(fh)
