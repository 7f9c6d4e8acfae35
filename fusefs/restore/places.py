"""Where pins are: a bpffs directory and the directories in it, which are made when something is to
be pinned there, and not before. No symbolic link is followed on the way."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from fusefs.bpf import bpffs
from fusefs.bpf.map import Map
from fusefs.restore.copies import Failed, reason_of

_MODE = 0o700  # of directories that are made


class Copied(Protocol):
    """Something that was copied: where the copy is, and the names that lead to what it is of."""

    @property
    def path(self) -> Path: ...

    @property
    def names(self) -> tuple[str, ...]: ...


class Places:
    """What has names in a bpffs directory; with `keep_modes`, what is made has the owner and mode
    that its copy has, else it is root's. Each method raises `Failed`."""

    def __init__(self, root: bpffs.Directory, *, keep_modes: bool = False) -> None:
        self.root = root
        self._keep_modes = keep_modes

    def status(self, what: Copied) -> os.stat_result | None:
        """The attributes of what is there, or None when nothing is."""
        name = what.names[-1]
        try:
            return self._parent(what.names).stat(name)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.EPERM and "." in "".join(what.names):  # as of any such name
                return None
            raise self._failed(what, error) from None

    def open(self, what: Copied) -> Map:
        """The map that is pinned there."""
        name = what.names[-1]
        try:
            parent = self._parent(what.names)
            found = parent.open_pin(name, parent.stat(name).st_ino)
        except OSError as error:
            raise self._failed(what, error) from None
        if not isinstance(found, Map):
            found.close()
            raise Failed(what.path, f"a {found.kind} is there, and no map")
        return found

    def pin(self, what: Copied, bpf_map: Map) -> None:
        """Pin a map there."""
        name = what.names[-1]
        with self._made(what) as parent:
            parent.pin(name, bpf_map)
            pin = _pinned(parent, name, bpf_map)
            try:
                self._own(pin, what.path, 0o666)
            except OSError:
                parent.unlink(name)
                raise

    def link(self, what: Copied, target: str) -> None:
        """Make a symbolic link there."""
        with self._made(what) as parent:
            parent.symlink(what.names[-1], target)

    def _parent(self, names: Sequence[str]) -> bpffs.Directory:
        directory = self.root
        for name in names[:-1]:
            directory = bpffs.Directory(name, directory)
        return directory

    @contextlib.contextmanager
    def _made(self, what: Copied) -> Iterator[bpffs.Directory]:
        """The directory for it, made if need be, but gone again if the block fails."""
        directory = self.root
        made: list[tuple[bpffs.Directory, str]] = []
        # The directories of the copy that stand for those on the way.
        copies = what.path.parents[: len(what.names) - 1][::-1]
        try:
            for name, copied in zip(what.names[:-1], copies, strict=True):
                try:
                    directory.mkdir(name, _MODE)
                except FileExistsError:
                    directory = bpffs.Directory(name, directory)
                else:
                    made.append((directory, name))
                    directory = _new(directory, name)
                    self._own(directory, copied, 0o1777)
            yield directory
        except OSError as error:
            for parent, name in reversed(made):
                with contextlib.suppress(OSError):
                    parent.rmdir(name)
            raise self._failed(what, error) from None

    def _own(self, made: bpffs.Named, copied: Path, bits: int) -> None:
        if self._keep_modes:
            status = copied.stat()
            made.chown(status.st_uid, status.st_gid)
            made.chmod(stat.S_IMODE(status.st_mode) & bits)

    def _failed(self, what: Copied, error: OSError) -> Failed:
        if error.errno == errno.ENOTDIR:
            return Failed(what.path, "what is on the way is no directory")
        return Failed(what.path, f"cannot pin: {reason_of(error)}")


# Who owns the directory in which something is made may put another thing in its place, to have that
# given away.


def _pinned(parent: bpffs.Directory, name: str, bpf_map: Map) -> bpffs.Named:
    """The pin of a map that was made a moment ago. Raises OSError when it is another's by now."""
    pin = parent.named(name)
    with pin.open() as found:
        if not isinstance(found, Map) or found.info.id != bpf_map.info.id:
            raise _replaced(name)
    return pin


def _new(parent: bpffs.Directory, name: str) -> bpffs.Directory:
    """A directory that was made a moment ago. Raises OSError when another is there by now: it may
    be taken for this one if it is as good as new, empty and for nobody else."""
    made = bpffs.Directory(name, parent)
    status = made.status()
    is_own = status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) & 0o777 == _MODE
    if not is_own or made.list():
        raise _replaced(name)
    return made


def _replaced(name: str) -> OSError:
    return OSError(errno.ESTALE, "somebody has put something else in its place", name)
