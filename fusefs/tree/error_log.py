"""Why operations on an object were refused: the long story behind an errno.

tracefs has the precedent (Documentation/trace/ftrace.rst, `error_log`).
"""

from __future__ import annotations

import os
from collections import deque
from datetime import UTC, datetime

from fusefs.bpf.object import Object
from fusefs.text.jsontext import escape_controls
from fusefs.tree.recent import Recent

_PER_OBJECT = 32
_OBJECTS = 1024
_EXCERPT = 72


def _excerpt(text: str, at: int) -> tuple[str, int]:
    """The line of `text` around position `at`, cut to a line of a terminal; and the column.

    What would move the cursor is shown as `?`.
    """
    start = text.rfind("\n", 0, at) + 1
    line = text[start:].partition("\n")[0]
    column = at - start
    if column > _EXCERPT * 2 // 3:
        cut = column - _EXCERPT // 2
        line, column = "…" + line[cut:], column - cut + 1
    if len(line) > _EXCERPT:
        line = line[:_EXCERPT] + "…"
    return "".join(c if c.isprintable() else "?" for c in line), column


def _printable(name: str) -> str:
    """`name` with bytes that are not UTF-8 replaced."""
    return os.fsencode(name).decode("utf-8", "replace")


class ErrorLogs:
    """The last refusals of each object, by the object's kind and id. Bounded in every way."""

    def __init__(self) -> None:
        self._logs = Recent[tuple[str, int], deque[str]](_OBJECTS)

    def add(self, obj: Object, what: str, reason: str, text: str = "", at: int = 0) -> None:
        """Note that `what` was refused for `reason`, at position `at` of `text` if there is one."""
        key = (obj.kind, obj.info.id)
        log = self._logs[key] = self._logs.get(key, deque(maxlen=_PER_OBJECT))
        when = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        # Names may be of any bytes: neither lines of their own nor a terminal's commands.
        lines = [f"{when} {escape_controls(_printable(what))}: {escape_controls(reason)}"]
        if text.strip():
            line, column = _excerpt(text, at)
            lines += [f"    {line}", f"    {' ' * column}^"]
        log.append("".join(f"{line}\n" for line in lines))

    def read(self, obj: Object) -> str:
        """The log of an object, oldest first; empty when nothing was refused."""
        return "".join(self._logs.get((obj.kind, obj.info.id), ()))

    def clear(self, obj: Object) -> None:
        """Forget an object's refusals."""
        self._logs.pop((obj.kind, obj.info.id), None)
