"""Writing a text: from the writes of a shell, a tool or an editor to one value that is committed.

Programs write as they like: in one piece, a byte and then the rest, without a newline, over what
was there, at the end. `Editing` puts the text together and knows when it is whole.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fusefs.bpf.bpffs import Pinned
from fusefs.text.errors import Incomplete, Refused
from fusefs.tree.node import Handle

if TYPE_CHECKING:
    from fusefs.tree.files import WritableFile

_LONGEST = 16 << 20
# A text that comes in many writes is checked as a whole only when it ends.
_CHECKED_EARLY = 1 << 16


class Editing(Handle):
    """An open text that is being written, and may be read.

    The text begins with the first byte written; what a program skips (it may write only what
    differs) comes from the contents before. The text is committed by the write that completes it
    with a newline, else by `flush`. A write that goes on from there begins the next text, so that
    one descriptor can set one value after the other. A refused write has not happened.
    """

    def __init__(self, file: WritableFile, obj: Pinned, contents: bytes, flags: int) -> None:
        self._file = file
        self._object = obj
        self._contents = contents
        self._flags = flags
        self._before = b"" if flags & os.O_TRUNC else contents
        self._origin = 0  # the file's offset at which the text begins
        self._text = b""
        self._settled = True  # there is no text that was neither committed nor refused

    def read(self, offset: int, size: int) -> bytes | None:
        if offset == 0:
            self._contents = self._file.render(self._object)
        return self._contents[offset : offset + size]

    def write(self, offset: int, data: bytes) -> None:
        if self._text and self._settled and not data.strip():
            self._text += data  # blank lines after a value
            return
        origin, text = self._place(offset, data)
        self._settled = self._commit_if_whole(text)
        self._origin, self._text = origin, text

    def _place(self, offset: int, data: bytes) -> tuple[int, bytes]:
        """Where the text begins, and the text, when `data` is written at `offset`."""
        if self._flags & os.O_APPEND:
            # The offset is the old contents' end: what is added is a text of its own.
            return (offset, data) if self._settled else (self._origin, self._text + data)
        end = self._origin + len(self._text)
        if offset == 0 or (self._settled and self._text and offset == end):
            return offset, data
        place = offset - self._origin
        text = self._text
        if place > len(text) and not self._origin:
            text += self._before[len(text) : place]
        if not 0 <= place <= len(text):
            raise self._refuse("write", Refused("the write leaves a hole in the text"), b"")
        return self._origin, text[:place] + data

    def _commit_if_whole(self, text: bytes) -> bool:
        """Commit a text that ends with a newline; refuse one that can no longer become valid."""
        if len(text) > _LONGEST:
            raise self._refuse("write", Refused(f"the text is longer than {_LONGEST} bytes"), b"")
        try:
            if text.endswith(b"\n"):
                self._accept(text)
                return True
            if len(text) < _CHECKED_EARLY:
                self._file.check(self._object, _decoded(_whole_characters(text)))
        except Incomplete as error:
            if _is_lone_line(text):
                raise self._refuse("write", Refused(str(error), len(text) - 1), text) from error
        except (Refused, OSError) as error:
            raise self._refuse("write", error, text) from error
        return False

    def _accept(self, text: bytes) -> None:
        self._file.accept(self._object, _decoded(text), self._flags)
        self._flags &= ~os.O_EXCL  # what was new is no longer

    def flush(self) -> None:
        if self._settled:
            return
        self._settled = True
        try:
            self._accept(self._text)
        except (Refused, Incomplete, OSError) as error:
            raise self._refuse("close", error, self._text) from error

    def truncate(self, size: int) -> None:
        if size == 0:
            self._before = self._text = b""
            self._origin, self._settled = 0, True
        elif size < len(self._text):
            self._text = self._text[:size]
        elif not self._text:
            self._before = self._before[:size]

    def _refuse(self, what: str, error: Exception, text: bytes) -> OSError:
        return self._file.refuse(self._object, what, error, text.decode("utf-8", "replace"))

    def close(self) -> None:
        self._object.close()


def _is_lone_line(text: bytes) -> bool:
    """Whether a text that lacks its end is a single line, as `echo` writes it.

    It is then refused at once, since the shell does not see an error at close. Those who write a
    long value line by line end the first with a bracket or a comma.
    """
    return text.count(b"\n") == 1 and text.rstrip()[-1:] not in (b"{", b"[", b",", b":")


def _decoded(text: bytes) -> str:
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
