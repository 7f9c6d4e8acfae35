"""Writing lines to `entries.jsonl`: all of a text is checked before the first entry is set.

A line is read in the write that brings its end, and what it says is kept as bytes. When a
descriptor is closed, and at fsync(2), all that was gathered is set, in batches. So a line that is
refused changes nothing, wherever in the text it is.

That a process was killed cannot be told from that it has closed its file: the whole lines that it
has written are set, unless it was killed within one. Nor can that a process which it has started
meanwhile has closed its copy. Of processes that share an open file, one that begins anew while the
lines of another are being set has no say in which of them are.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fusefs.bpf.bulk import Stopped
from fusefs.bpf.map import Map
from fusefs.text.errors import Incomplete, Refused
from fusefs.text.reading import LinesReader
from fusefs.text.value import to_text
from fusefs.tree.editing import decoded
from fusefs.tree.files import explained
from fusefs.tree.gathered import Gathered
from fusefs.tree.node import Opening, refusal
from fusefs.tree.stream_files import Streaming

if TYPE_CHECKING:
    from fusefs.tree.streams import EntriesJsonl

# So many bytes of lines are taken by a write, of plain ones and of others, for others wait so long;
# who has more writes again, as after any short write.
_PLAIN_LINES = 1 << 17
_LINES = 1 << 12
_SPACE = b" \t\r"  # what a line may have that says nothing
# What may be gathered for a map of fewer entries, where keys can come again: so many of them, and
# so many bytes.
_GATHERED = 1 << 16
_GATHERED_BYTES = 1 << 24


class Loading(Streaming):
    """An `entries.jsonl` that is open for writing, and may be read.

    A text is written from its start to its end: one that begins at offset 0 again replaces what was
    gathered of the one before, and all that is added is where the last write ended (who appends
    always adds, whatever the offset: the file has no size that would tell it). Once a line was
    refused, so is all that follows, up to a new start.
    """

    def __init__(self, file: EntriesJsonl, bpf_map: Map, opening: Opening) -> None:
        super().__init__(file, bpf_map)
        self._file = file
        self._map = bpf_map
        self._appends = bool(opening.flags & os.O_APPEND)
        few = min(_GATHERED, _GATHERED_BYTES // (bpf_map.key_size + bpf_map.stride))
        self._most = max(file.view.max_entries, few)
        self._reader = LinesReader(file.view.key, file.view.value)
        self._begin()

    def _begin(self) -> None:
        self._end = 0  # where the next write belongs
        self._rest = bytearray()  # of a line whose end is yet to come
        self._line = 0  # the number of the last line that was read
        self._gathered: deque[Gathered] = deque()
        self._count = 0  # of what was gathered
        self._size = 0  # of all that but the last, in bytes
        self._refused = False
        self._complained = False  # whether the log has it that the last line is incomplete

    @property
    def held(self) -> int:
        last = self._gathered[-1].size if self._gathered else 0
        return super().held + len(self._rest) + self._size + last

    def begin(self) -> Iterator[None]:
        return iter(())  # it is open to be written

    def write(self, offset: int, data: bytes) -> int:
        if offset == 0 and not self._appends:
            self._begin()
        if self._refused:
            raise refusal(errno.EINVAL, "a line before it was refused")
        if offset != self._end and not self._appends:
            reason = "lines are taken one after the other, from the first"
            raise self._refuse("write", Refused(reason))
        taken = self._take(data)
        self._end = offset + taken
        return taken

    def _take(self, data: bytes) -> int:
        """Read as many lines as others can wait for, and keep a last one that has no end yet; how
        much was taken."""
        end = self._read_plain_lines(data) or self._read_each(data)
        if data.find(b"\n", end) >= 0:
            return end
        self._keep(data[end:])
        return len(data)

    def _read_plain_lines(self, data: bytes) -> int:
        """Read all lines at once, or else the first quarter of them, or the first quarter of those;
        how much was read."""
        size = _PLAIN_LINES
        while size > _LINES:
            end = data.rfind(b"\n", 0, size) + 1
            if end and self._read_plain(bytes(self._rest) + data[:end]):
                self._rest.clear()
                return end
            size = min(size, len(data)) // 4
        return 0

    def _read_each(self, data: bytes) -> int:
        """Read some lines one by one; how much was read."""
        end = data.rfind(b"\n", 0, _LINES) + 1 or data.find(b"\n") + 1
        if end:
            lines = bytes(self._rest) + data[: end - 1]
            self._rest.clear()
            for line in lines.split(b"\n"):
                self._read(line)
        return end

    def _read_plain(self, lines: bytes) -> bool:
        """Gather what lines say, all at once; whether that could be done."""
        view = self._file.view
        if (self._reader.key, self._reader.value) != (view.key, view.value):
            self._reader = LinesReader(view.key, view.value)
        read = self._reader.read(lines)
        if read is None:
            return False
        keys, values = read
        count = len(keys) // view.key_size
        if self._count + count > self._most or view.past_end(keys):
            return False
        self._line += count
        self._add(count, keys, values, self._reader.kept * count)
        return True

    def _keep(self, data: bytes) -> None:
        """Keep a part of a line."""
        longest = self._file.longest
        if len(self._rest) + len(data) > longest:
            reason = f"line {self._line + 1} is longer than {longest} bytes"
            raise self._refuse("write", Refused(reason))
        self._rest += data
        self._complained = False

    def _read(self, line: bytes) -> None:
        """Gather what a line says. Raises OSError when it is refused."""
        self._line += 1
        if line.strip(_SPACE):
            try:
                self._gather_line(line)
            except (Refused, Incomplete, OSError) as error:
                raise self._refuse("write", error, line) from error

    def _gather_line(self, line: bytes) -> None:
        """Raises `Refused`, `Incomplete` or OSError."""
        entry = self._file.entry(decoded(line), self._map)
        if self._count == self._most:
            raise refusal(errno.EFBIG, f"more lines than the map can hold ({self._most})")
        size = len(entry.value)
        kept = entry.kept.to_bytes(size, "little") if entry.kept else b""
        self._add(1, entry.key, entry.value, kept)

    def _add(self, count: int, keys: bytes, values: bytes, kept: bytes) -> None:
        if not self._gathered:
            self._gathered.append(Gathered(self._file.view))
        elif (last := self._gathered[-1]).full:
            self._size += last.size
            self._gathered.append(Gathered(self._file.view))
        self._gathered[-1].add(count, keys, values, kept)
        self._count += count

    def flush(self) -> Iterator[None]:
        """Set what was gathered. The text may go on: a process that was forked has closed its
        copy."""
        self._read_rest()
        done, count = 0, self._count
        while self._gathered:
            some = self._gathered.popleft()
            self._count -= some.count
            self._size -= some.size if self._gathered else 0
            try:
                some.set(self._map)
            except Stopped as stopped:
                raise self._stopped(some, stopped, done, count) from stopped
            done += some.count
            yield

    def _read_rest(self) -> None:
        """Read the last line, which lacks its newline. One that is incomplete stays: it may be that
        a process that was forked has closed its copy, and another one writes on."""
        rest = bytes(self._rest)
        if not rest.strip(_SPACE):
            return
        self._line += 1
        try:
            self._gather_line(rest)
        except Incomplete as error:
            self._line -= 1
            raise self._unfinished(error, rest) from error
        except (Refused, OSError) as error:
            raise self._refuse("close", error, rest) from error
        self._rest.clear()

    def _unfinished(self, error: Incomplete, rest: bytes) -> OSError:
        """Nothing is set before the last line is whole; the log has that once."""
        if self._complained:
            return refusal(errno.EINVAL, str(error))
        self._complained = True
        return self._explained("close", error, rest, self._line + 1)

    def _stopped(self, some: Gathered, stopped: Stopped, done: int, count: int) -> OSError:
        """Drop all that is left; the error for the user."""
        done += stopped.done
        key = to_text(self._file.view.key, some.key(stopped.done)).strip()
        what = f"close {self._file.name}, {done} of {count} entries set, stopped at key {key}"
        self._drop()
        return explained(self._file.subject, self._map, what, stopped)

    def _drop(self) -> None:
        """Take nothing more, and forget what was taken."""
        self._begin()
        self._refused = True

    def _refuse(self, what: str, error: Exception, line: bytes = b"") -> OSError:
        """Drop all; the error for the user."""
        refused = self._explained(what, error, line, self._line)
        self._drop()
        return refused

    def _explained(self, what: str, error: Exception, line: bytes, number: int) -> OSError:
        if line:
            what = f"{what} line {number} of"
        text = line.decode("utf-8", "replace")
        return self._file.refuse(self._map, what, error, text)

    def truncate(self, size: int) -> None:
        """Begin anew; that alone changes nothing. Tools that know the length set it at the end."""
        if size == 0:
            self._begin()
        elif size != self._end:
            raise refusal(errno.EINVAL, "lines that were written cannot be cut off")
