"""What changes in bpffs, told to those who watch the mount: file managers, `inotifywait`.

The kernel tells watchers of a directory what is made and removed in it by system calls on the very
mount; of what others do to the bpffs behind it they hear nothing, and FUSE has no message for
that (FUSE_NOTIFY_DELETE tells only who watches what is deleted; tried on Linux 6.18). So each such
change is echoed: a process of ours (`echoing.py`) makes or removes the name in the mount, as if it
were not so yet, and those requests are answered here, without doing anything.

It costs nothing as long as nothing changes. A change in a directory that nobody has listed, or that
nobody watches, is not echoed.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Callable

import trio
from inotify_simple import INotify, flags

from fusefs import echoing
from fusefs.bpf.mounts import mounts
from fusefs.echoing import Change, Kind, as_line
from fusefs.tree.mirror import Mirror, Sealed
from fusefs.tree.node import FRESH, Node, Symlink, gone, refusal

log = logging.getLogger(__name__)

_CHANGES = flags.CREATE | flags.DELETE | flags.MOVED_FROM | flags.MOVED_TO | flags.ONLYDIR
# Changes are gathered for so many seconds; by then nobody knows names from before.
_GATHERED = 2 * FRESH
# After some were told, for so many times as long as that took, since to find out who watches takes
# long where many do; but for no longer than so many seconds.
_REST = 10
_LONGEST = 5.0
# When more names than that have changed, whoever watches has to look by themselves.
_MOST = 1000

# So many directories are watched, those that were listed last. The kernel counts watches by users
# (inotify(7)), and others of root need theirs.
_MOST_WATCHED = 4096

# The process that echoes ends when nothing has changed for so many seconds. It is replaced when it
# has not answered for so many.
_IDLE = 10.0
_PATIENCE = 30.0

Name = tuple[int, str]  # the inode number of a directory in the mount, and a name in it


class Echoes:
    """Those of a mount. `known` gives the node that the kernel knows by an inode number, if any.

    Nothing is echoed on a read-only mount, where nothing can be made or removed.
    """

    def __init__(self, mountpoint: str, known: Callable[[int], Node | None]) -> None:
        self._mountpoint = mountpoint
        self._known = known
        self._device: int | None = None
        self._inotify: INotify | None = None
        self._nursery: trio.Nursery | None = None
        self._numbers: dict[int, int] = {}  # of directories, by the watch
        self._watches: dict[int, int] = {}  # by the number
        self._own: Counter[Name] = Counter()  # changes that were made in the mount
        self._process: trio.Process | None = None  # that which echoes
        self._ours: set[int] = set()  # the ids of all such that have not ended
        self._echoed: dict[Name, Node | None] = {}  # what it echoes now: names, and what they are
        self._took = 0.0  # seconds that it took the last time, once it was started
        self._sealed: set[Name] = set()  # those of which it was told that they are `Sealed`

    def start(self, nursery: trio.Nursery) -> None:
        """Work in `nursery` from now on. Called once, when the mount is there."""
        self._nursery = nursery
        here = [mount for mount in mounts() if mount.mountpoint == self._mountpoint]
        self._device = here[-1].device if here and not here[-1].read_only else None

    def watch(self, number: int, mirror: Mirror) -> None:
        """A directory is listed by somebody, who may watch it."""
        if self._device is None or self._nursery is None:
            return
        if number in self._watches:
            self._watches[number] = self._watches.pop(number)  # as the last one to go
            return
        try:
            if self._inotify is None:
                self._inotify = INotify(nonblocking=True)
                self._nursery.start_soon(self._run, self._inotify)
            if len(self._watches) >= _MOST_WATCHED:
                self._forget(self._inotify, next(iter(self._watches)))
            watch = self._inotify.add_watch(f"/proc/self/fd/{mirror.directory.fd}", _CHANGES)
        except OSError as error:
            log.debug("changes in a directory will not be told: %s", error)
            return
        self._numbers[watch], self._watches[number] = number, watch

    def made_here(self, number: int, name: str) -> None:
        """A change was made in the mount: the kernel has told it."""
        if number in self._watches:
            self._own[number, name] += 1

    # Requests that are the echo of a change; `pid` is the process that makes them. It has root's
    # rights, and nothing that it asks for is ever done.

    def lookup(self, pid: int, number: int, name: str) -> Node | None:
        """What a name is to be before its change is echoed, if it is an echo. Raises
        FileNotFoundError."""
        if pid not in self._ours or (number, name) not in self._echoed:
            return None  # or on the way to it
        mirror = self._known(number)
        if self._echoed[number, name] is not None or not isinstance(mirror, Mirror):
            raise refusal(errno.ENOENT)
        with contextlib.suppress(FileNotFoundError):
            mirror.lookup(name)
            return None  # it is there again, and that is told next
        self._sealed.add((number, name))
        return Sealed(mirror.directory, name)

    def made(self, pid: int, number: int, name: str) -> Node | None:
        """What is made by a name, if that is an echo. Raises OSError for one that is not awaited
        any more."""
        if pid not in self._ours:
            return None
        if (node := self._echoed.get((number, name))) is None:
            raise _late()
        return node

    def removed(self, pid: int, number: int, name: str) -> bool:
        """Whether it is an echo that a name is removed, which is gone already. Raises OSError for
        one that is not awaited any more.

        To the kernel what is removed is dead (vfs_rmdir, S_DEAD), and a pin that is there again and
        was just looked up by others must not be that. So its echo has to look the name up itself,
        which the kernel does on ESTALE. Raises `gone()`.
        """
        if pid not in self._ours:
            return False
        if self._echoed.get((number, name), ...) is not None:
            raise _late()
        if (number, name) not in self._sealed:
            raise gone()
        self._sealed.remove((number, name))
        return True

    # Gathering changes, and echoing them.

    async def _run(self, inotify: INotify) -> None:
        try:
            while True:
                with trio.move_on_after(_IDLE if self._process else math.inf) as waiting:
                    await trio.lowlevel.wait_readable(inotify.fileno())
                if waiting.cancelled_caught:
                    await self._end()
                    continue
                await trio.sleep(min(max(_GATHERED, _REST * self._took), _LONGEST))
                if changes := self._changes(inotify):
                    await self._echo(changes)
        except Exception:  # it would end the mount
            log.exception("changes in bpffs are not told to those who watch the mount any more")
        finally:
            self._device = None
            self._watches.clear()
            # The descriptor stays until the process ends: to close it waits for the kernel's other
            # work, for seconds on a busy machine (fsnotify_destroy_group in fs/notify/group.c), and
            # those who use the mount until it ends would wait as well.
            await self._end()

    def _changes(self, inotify: INotify) -> list[Change]:
        """What has changed, as it is now."""
        names: dict[Name, None] = {}
        for event in inotify.read(timeout=0):
            number = self._numbers.get(event.wd)
            if event.mask & flags.IGNORED:  # the directory is gone, and with it the watch
                self._watches.pop(self._numbers.pop(event.wd, 0), None)
            elif number is not None and not self._is_own((number, event.name)):
                names[number, event.name] = None
        self._own.clear()  # their events have come
        if len(names) > _MOST:
            log.debug("%d changes are not told one by one", len(names))
            return []
        self._echoed, self._sealed = {}, set()
        return [change for name in names if (change := self._change(inotify, *name))]

    def _is_own(self, name: Name) -> bool:
        """Whether a change was made in the mount, one for each time that it is asked."""
        self._own[name] -= 1
        return self._own[name] >= 0

    def _change(self, inotify: INotify, number: int, name: str) -> Change | None:
        """What to echo of a name; None where nothing can be."""
        mirror = self._known(number)
        if not isinstance(mirror, Mirror):  # nobody has it in use any more
            self._forget(inotify, number)
            return None
        if (path := mirror.directory.path()) is None:
            return None
        mirror.turn()
        try:
            node: Node | None = mirror.lookup(name)
            kind = Kind.LINK if isinstance(node, Symlink) else Kind.DIRECTORY
        except FileNotFoundError:
            node, kind = None, Kind.GONE
        except OSError as error:
            log.debug("%s: %s", name, error)
            return None
        self._echoed[number, name] = node
        return Change(number, "/".join(path), name, kind)

    def _forget(self, inotify: INotify, number: int) -> None:
        """Watch a directory no more."""
        if (watch := self._watches.pop(number, None)) is not None:
            del self._numbers[watch]
            with contextlib.suppress(OSError):  # the kernel has done so
                inotify.rm_watch(watch)

    async def _echo(self, changes: list[Change]) -> None:
        """Have changes echoed, and wait until they are."""
        try:
            for _ in range(2):  # it may have been killed meanwhile
                with trio.move_on_after(_PATIENCE):
                    if await self._tell(changes):
                        return
                await self._end()
            log.warning("changes in bpffs were not told to those who watch")
        except OSError as error:
            log.warning("changes in bpffs were not told to those who watch: %s", error)
            await self._end()
        finally:
            self._echoed = {}

    async def _tell(self, changes: list[Change]) -> bool:
        """Tell the process that echoes of changes; whether it has answered. Raises OSError when it
        cannot be started."""
        assert self._device is not None
        is_new = self._process is None
        if self._process is None:
            self._process = await _started([sys.executable, "-P", "-m", echoing.__name__])
            self._ours.add(self._process.pid)
        assert self._process.stdin and self._process.stdout
        began = trio.current_time()
        try:
            await self._process.stdin.send_all(as_line(self._device, self._mountpoint, changes))
            answered = bool(await self._process.stdout.receive_some())
        except trio.BrokenResourceError:
            return False
        self._took = 0.0 if is_new else trio.current_time() - began
        return answered

    async def _end(self) -> None:
        """End the process that echoes. Who is cancelled does not wait for that: it may wait for an
        answer that it will not get before the mount ends."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin and process.stdout
        process.kill()  # while it is still asking for something, maybe
        with trio.CancelScope(shield=True):
            await process.stdin.aclose()
            await process.stdout.aclose()
        await process.wait()
        self._ours.discard(process.pid)


def _late() -> OSError:
    return refusal(errno.ECANCELED, "nobody waits for this echo any more")


async def _started(command: list[str]) -> trio.Process:
    """A process, with pipes to it and from it. Raises OSError."""
    try:
        return await trio.lowlevel.open_process(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
    except RuntimeError as error:  # trio starts it from a thread, and there can be no other
        raise OSError(errno.EAGAIN, str(error)) from error
