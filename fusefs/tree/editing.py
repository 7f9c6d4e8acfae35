"""Writing a text: from the writes of a shell, a tool or an editor to one value that is committed.

Programs write as they like: in one piece, a byte and then the rest, without a newline, over what
was there, at the end. `Editing` puts the text together and knows when it is whole.
"""

from __future__ import annotations

import enum
import errno
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fusefs.bpf.object import Object
from fusefs.text.errors import Incomplete, Refused
from fusefs.tree.node import Handle, Opening, refusal

if TYPE_CHECKING:
    from fusefs.tree.files import WritableFile

# A longer text is not looked at before it ends with a newline, and when it proves incomplete then,
# not before it has grown to twice its length: many lines of a long text take no longer than one.
_CHECKED = 1 << 16
# So many bytes of lines are taken by a write; who has more writes again, as after any short write.
_LINES = 1 << 14


class Partly(Exception):  # noqa: N818 - a text's fate, as `Refused` is
    """Of a text that goes by lines only the first `taken` bytes were; more can be tried again."""

    def __init__(self, taken: int) -> None:
        super().__init__(f"{taken} bytes were taken")
        self.taken = taken


class _State(enum.Enum):
    """How it stands with the text."""

    NONE = enum.auto()  # nothing was written
    OPEN = enum.auto()  # what was written is not committed
    SAVED = enum.auto()  # it was committed when a descriptor was closed; another may write on
    ENDED = enum.auto()  # it was committed with the newline that ends it
    REFUSED = enum.auto()  # an unfinished text could not become valid, and was dropped


_UNFINISHED = (_State.OPEN, _State.SAVED)


class Editing(Handle):
    """An open text that is being written, and may be read.

    A write at the start begins a new text; a write elsewhere goes over what is there, in the text
    or in the contents before. The text is committed by the write that completes it with a newline,
    else by `flush`; that of a file that goes `by_lines`, line by line. A write after that newline
    begins the next text, so that one descriptor can set one value after the other. A write that is
    refused has not happened; when it would have gone on with an unfinished text, that is dropped,
    and none but a new one from the start is taken.
    """

    def __init__(self, file: WritableFile, obj: Object, contents: bytes, opening: Opening) -> None:
        self._file = file
        self._object = obj
        self._contents = contents
        self._opening = opening
        self._before = contents
        self._origin = 0  # the file's offset at which the text begins
        self._text = b""
        self._state = _State.NONE
        self._incomplete = 0  # the length at which a long text was incomplete
        self._complained = False  # whether the log has it that this text is incomplete
        if opening.flags & os.O_TRUNC:
            self.truncate(0)

    @property
    def held(self) -> int:
        return len(self._contents) + len(self._text)

    @property
    def makes(self) -> bool:
        return bool(self._opening.flags & os.O_CREAT)

    def read(self, offset: int, size: int) -> bytes | None:
        if offset == 0:
            self._contents = self._file.render(self._object)
        return self._contents[offset : offset + size]

    def write(self, offset: int, data: bytes) -> int:
        if self._file.by_lines:
            data = _some_lines(data)
        end = self._origin + len(self._text)
        blank = not self._file.by_lines and not data.strip()
        if blank and self._state == _State.ENDED and offset == end:
            self._check_length(end - self._origin + len(data))
            self._text += data  # blank lines after a value
            return len(data)
        origin, text = self._place(offset, data)
        goes_on = self._state in _UNFINISHED and len(text) > len(data)
        try:
            whole = self._commit_whole(text)
        except Partly as part:
            self._origin, self._text, self._state = origin + part.taken, b"", _State.ENDED
            # To have taken nothing would not be an error, and tools would try for ever.
            return max(len(data) - (len(text) - part.taken), 1)
        except OSError:
            if goes_on:
                self._drop()
            raise
        self._complained = False
        if whole == len(text):
            self._origin, self._text, self._state = origin, text, _State.ENDED
        else:
            self._origin, self._text, self._state = origin + whole, text[whole:], _State.OPEN
        return len(data)

    def _place(self, offset: int, data: bytes) -> tuple[int, bytes]:
        """Where the text begins, and the text, when `data` is written at `offset`."""
        appends = self._opening.flags & os.O_APPEND
        if appends and self._state in _UNFINISHED:
            return self._origin, self._text + data
        if offset == 0:
            return 0, data
        if self._state == _State.REFUSED:
            raise self._refuse("write", Refused("what was written before it was refused"), b"")
        if appends:
            # The offset is the old contents' end: what is added is a text of its own.
            return offset, data
        text = self._before if self._state == _State.NONE else self._text
        place = offset - self._origin
        if self._state in (_State.NONE, _State.ENDED) and place == len(text) > 0:
            return offset, data  # after a whole text, which may be the one that was read
        if place > len(text) and not self._origin:
            text += self._before[len(text) : place]
        if not 0 <= place <= len(text):
            raise self._refuse("write", Refused("the write leaves a hole in the text"), b"")
        return self._origin, text[:place] + data + text[place + len(data) :]

    def _commit_whole(self, text: bytes) -> int:
        """Commit a text that ends with a newline, or the lines before its last one; refuse what can
        no longer become valid. How much was committed."""
        whole = len(text) if not self._file.by_lines else text.rfind(b"\n") + 1
        self._check_length(len(text))
        try:
            if text[:whole].endswith(b"\n") and len(text) >= 2 * self._incomplete:
                self._accept(text[:whole])
                return whole
            if len(text) < _CHECKED:
                self._file.check(self._object, decoded(_whole_characters(text)))
        except Incomplete as error:
            self._incomplete = len(text) if len(text) >= _CHECKED else 0
            if text.endswith(b"\n") and _is_lone_line(text):
                raise self._refuse("write", Refused(str(error), len(text) - 1), text) from error
        except (Refused, OSError) as error:
            raise self._refuse("write", error, text) from error
        return 0

    def _check_length(self, length: int) -> None:
        if length > self._file.longest:
            refused = Refused(f"the text is longer than {self._file.longest} bytes")
            raise self._refuse("write", refused, b"")

    def _accept(self, text: bytes) -> None:
        self._file.accept(self._object, decoded(text), self._opening)
        # What was new is no longer.
        flags = self._opening.flags & ~(os.O_CREAT | os.O_EXCL)
        self._opening = Opening(flags, self._opening.caller)
        self._incomplete = 0

    def flush(self) -> Iterator[None]:
        """Commit the text. It may still go on: a process that was forked has closed its copy."""
        if self._state == _State.OPEN:
            self._commit()
        return iter(())

    def _commit(self) -> None:
        try:
            self._accept(self._text)
        except Incomplete as error:
            raise self._complain(error) from error
        except (Refused, OSError) as error:
            text = self._text
            self._drop()
            raise self._refuse("close", error, text) from error
        ended = self._text.endswith(b"\n") or not self._file.goes_on
        self._state = _State.ENDED if ended else _State.SAVED

    def _complain(self, error: Incomplete) -> OSError:
        if self._complained:
            return refusal(errno.EINVAL, str(error))
        self._complained = True
        return self._refuse("close", error, self._text)

    def _drop(self) -> None:
        self._text, self._state = b"", _State.REFUSED

    def truncate(self, size: int) -> None:
        if size == 0:
            self._file.emptied(self._object)
            self._before = self._text = b""
            self._origin, self._state = 0, _State.NONE
        elif self._state == _State.NONE:
            self._before = self._before[:size]
        elif self._state in _UNFINISHED or not self._file.by_lines:  # lines that were taken stay
            kept = max(size - self._origin, 0)
            if kept < len(self._text):
                self._text = self._text[:kept]
                self._state = _State.OPEN if self._text else _State.ENDED

    def _refuse(self, what: str, error: Exception, text: bytes) -> OSError:
        return self._file.refuse(self._object, what, error, text.decode("utf-8", "replace"))

    def close(self) -> None:
        self._object.close()


def _some_lines(data: bytes) -> bytes:
    """The first lines: as many as others can wait for, but one at least, or all where there is no
    end of a line."""
    end = data.rfind(b"\n", 0, _LINES) + 1 or data.find(b"\n") + 1
    return data[:end] if end else data


def _is_lone_line(text: bytes) -> bool:
    """Whether a text that lacks its end is a single line, as `echo` writes it.

    It is then refused at once, since the shell does not see an error at close. Those who write a
    long value line by line end the first with a bracket or a comma.
    """
    return text.count(b"\n") == 1 and text.rstrip()[-1:] not in (b"{", b"[", b",", b":")


def decoded(text: bytes) -> str:
    """The text. Raises `Refused` for what is not UTF-8."""
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        at = len(text[: error.start].decode())
        raise Refused(f"byte {error.start} is not UTF-8", at) from None


def _whole_characters(text: bytes) -> bytes:
    """The text without a character that is cut off at its very end: the next write has the rest."""
    try:
        text.decode()
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data":
            return text[: error.start]
    return text
