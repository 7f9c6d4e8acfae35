"""The files of an object's directory: those that show a text, and writing.

A `TextFile` is rendered whole when it is opened, and its size is true. What may be of any length
is a `StreamFile` (`tree/stream_files.py`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterator
from typing import ClassVar

from fusefs.bpf.credentials import Caller
from fusefs.bpf.map import Map
from fusefs.bpf.object import Object
from fusefs.bpf.syscall import ENOTSUPP
from fusefs.text.errors import Incomplete, Refused
from fusefs.tree.editing import Editing
from fusefs.tree.node import (
    Attributes,
    Change,
    File,
    Handle,
    Opening,
    check_access,
    readers_among,
    refusal,
    wants_write,
)
from fusefs.tree.sighting import Sighting
from fusefs.tree.subject import Subject

# The kernel's errno, the one that a user of the shell understands, and the reason for the log.
_TRANSLATED = {
    ENOTSUPP: (errno.EOPNOTSUPP, "the kernel does not support this for this type of {kind}"),
}
_OF_MAPS = _TRANSLATED | {errno.E2BIG: (errno.ENOSPC, "the map is full")}


def explained(
    subject: Subject, obj: Object, what: str, error: Exception, text: str = ""
) -> OSError:
    """Note in the object's log why `what` was refused, and give the error for the user.

    `text` is what the user wrote; a `Refused` knows the place in it.
    """
    if isinstance(error, OSError):
        number = error.errno or errno.EIO
        translated = _OF_MAPS if isinstance(obj, Map) else _TRANSLATED
        if number in translated:
            number, reason = translated[number]
            reason = reason.format(kind=obj.kind)
        else:
            reason = error.strerror or str(error)
        if number == errno.EPERM and isinstance(obj, Map):
            if obj.read_only():
                number, reason = errno.EROFS, "the bpffs is mounted read-only"
            elif obj.frozen():
                reason = "the map is frozen"
        at, text = 0, ""
    else:
        number, reason = errno.EINVAL, str(error)
        at = error.at if isinstance(error, Refused) else len(text.rstrip())
    subject.logs.add(obj, what, reason, text, at)
    return refusal(number, reason)


@contextlib.contextmanager
def noting(subject: Subject, obj: Object, what: str, text: str = "") -> Iterator[None]:
    """What is refused within the block is noted, see `explained`, and raised for the user."""
    try:
        yield
    except (Refused, Incomplete, OSError) as error:
        raise explained(subject, obj, what, error, text) from error


class ObjectFile(File):
    """A file in the directory of `subject`, called `name` there."""

    __slots__ = ("_name", "subject")

    def __init__(self, subject: Subject, name: str, identity: Hashable = None) -> None:
        super().__init__(identity or (subject.identity, name))
        self.subject = subject
        self._name = name

    @property
    def name(self) -> str:
        """What it is called there."""
        return self._name

    def permissions(self, status: os.stat_result) -> int:
        """Its permission bits, from those of the subject: to read, and no more."""
        return status.st_mode & 0o444

    @property
    def roots(self) -> bool:
        """Whether it is root's, whoever the subject belongs to."""
        return self.subject.roots

    def basics(self, status: os.stat_result) -> Attributes:
        """Its attributes but for the size, from those of the subject."""
        attributes = Attributes.of(status, stat.S_IFREG | self.permissions(status))
        if not self.subject.roots:  # else nobody but root comes here
            known_by = 0 if self.roots else readers_among(status, attributes.mode)
            attributes.known_by = known_by
        if self.roots:
            attributes.mode &= ~0o077
            attributes.uid = attributes.gid = 0
        return attributes

    def admit(self, opening: Opening) -> os.stat_result:
        """The attributes of the subject. Raises PermissionError for who may not open it so."""
        status = self.subject.status()
        check_access(self.permissions(status), opening.flags)
        if self.roots and not opening.caller.is_root:
            raise refusal(errno.EACCES)
        return status

    def check_seeker(self, caller: Caller) -> None:
        """Raise PermissionError for who may not know whether it is there; then it is `private`."""

    def present(self) -> bool:
        """Whether the object has this file now."""
        return True

    @property
    def listed(self) -> bool:
        """Whether those see it who look at all that is there; others know its name."""
        return True

    def remove(self, caller: Caller) -> None:
        """Remove what the file shows."""
        raise refusal(errno.EPERM)

    def refuse(self, obj: Object, what: str, error: Exception, text: str = "") -> OSError:
        """Note in the object's log why `what` was refused; the error for the user."""
        return explained(self.subject, obj, f"{what} {self.name}", error, text)


class TextFile(ObjectFile):
    """A file that shows a text."""

    __slots__ = ("_sighting",)

    def __init__(self, subject: Subject, name: str, identity: Hashable = None) -> None:
        super().__init__(subject, name, identity)
        self._sighting = Sighting()

    @abstractmethod
    def render(self, obj: Object) -> bytes:
        """The text now. Raises OSError, `gone()` for a part of the object that is gone."""

    def glance(self, obj: Object) -> bytes:
        """The text as of not long ago, for attributes, where that costs less than to render it."""
        return self.render(obj)

    def see(self, contents: bytes, mtime_ns: int) -> None:
        """Note the contents; they are from `mtime_ns` if nobody has seen the file before."""
        self._sighting.see(contents, mtime_ns)

    def attributes(self) -> Attributes:
        status = self.subject.status()
        if not self.known:
            with self.subject.borrow() as obj:
                self.see(self.glance(obj), status.st_mtime_ns)
        attributes = self.basics(status)
        attributes.size = self._sighting.size
        attributes.mtime_ns = attributes.ctime_ns = self._sighting.mtime_ns
        return attributes

    @property
    def known(self) -> bool:
        """Whether what was last seen of the contents is good enough to tell their size."""
        return self._sighting.fresh

    @property
    def sighting(self) -> Sighting:
        return self._sighting

    def open(self, flags: int, caller: Caller) -> Handle:
        opening = Opening(flags, caller)
        status = self.admit(opening)
        obj = self.subject.open()
        try:
            contents = self.contents(obj, flags)
        except BaseException:
            obj.close()
            raise
        self.see(contents, status.st_mtime_ns)
        return self.handle(obj, contents, opening)

    def contents(self, obj: Object, flags: int) -> bytes:
        """What an open with these flags finds."""
        return self.render(obj)

    def handle(self, obj: Object, contents: bytes, opening: Opening) -> Handle:
        """The open file."""
        return Reading(self.render, obj, contents)


class WritableFile(TextFile):
    """A file that shows a text and takes one.

    `goes_on` tells whether a text without a newline that was accepted may still be added to, and
    is then accepted again. `by_lines` tells whether whole lines are a text of their own, and may be
    accepted before the rest of the next one comes.
    """

    __slots__ = ()
    goes_on: ClassVar[bool] = True
    by_lines: ClassVar[bool] = False

    def permissions(self, status: os.stat_result) -> int:
        return status.st_mode & 0o666

    @property
    def longest(self) -> int:
        """The length in bytes that a text may have."""
        return 1 << 16

    def check(self, obj: Object, text: str) -> None:
        """Raise `Refused` when no text that begins so can be valid."""

    @abstractmethod
    def accept(self, obj: Object, text: str, opening: Opening) -> None:
        """Do what a whole text says.

        Raises `Refused`, `Incomplete` or OSError, and then nothing has changed.
        """

    def change(self, change: Change, caller: Caller) -> None:
        """Tools set size, mode, owner and times of what they save: accepted, and without effect."""

    def fixed(self) -> str:
        """Why nobody can write it; empty when those can who have the permission."""
        return ""

    def emptied(self, obj: Object) -> None:
        """It was truncated. That alone changes nothing; the value that is written next does."""

    def handle(self, obj: Object, contents: bytes, opening: Opening) -> Handle:
        if wants_write(opening.flags):
            return Editing(self, obj, contents, opening)
        return Reading(self.render, obj, contents)


class Reading(Handle):
    """An open text: one consistent rendering, made anew when it is read again from its start."""

    def __init__(self, render: Callable[[Object], bytes], obj: Object, contents: bytes) -> None:
        self._render = render
        self._object = obj
        self._contents = contents
        self._untouched = True

    @property
    def held(self) -> int:
        return len(self._contents)

    def read(self, offset: int, size: int) -> bytes | None:
        if offset == 0:
            if not self._untouched:
                self._contents = self._render(self._object)
            self._untouched = False
        return self._contents[offset : offset + size]

    def close(self) -> None:
        self._object.close()


class FixedFile(ObjectFile):
    """A read-only file whose contents are known without the object."""

    __slots__ = ("_contents",)

    def __init__(self, subject: Subject, name: str, contents: bytes) -> None:
        super().__init__(subject, name)
        self._contents = contents

    def attributes(self) -> Attributes:
        attributes = self.basics(self.subject.status())
        attributes.size = len(self._contents)
        return attributes

    def open(self, flags: int, caller: Caller) -> Handle:
        self.admit(Opening(flags, caller))
        return Fixed(self._contents)


class Fixed(Handle):
    """An open file of fixed contents."""

    def __init__(self, contents: bytes) -> None:
        self._contents = contents

    def read(self, offset: int, size: int) -> bytes | None:
        return self._contents[offset : offset + size]
