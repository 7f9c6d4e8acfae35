"""Small files that say one thing of an object, and let it be set: `error_log`, `frozen`,
`format`."""

from __future__ import annotations

import errno
import os

from fusefs.bpf.credentials import Caller
from fusefs.bpf.map import Map
from fusefs.bpf.object import Object
from fusefs.text.errors import Refused
from fusefs.text.formats import AUTO, EACH, PERCPU, Unfit, parse_settings
from fusefs.tree.files import WritableFile
from fusefs.tree.info_file import links_bits
from fusefs.tree.map_view import MapView
from fusefs.tree.node import Change, Opening, refusal
from fusefs.tree.subject import Place, Subject


class ErrorLogFile(WritableFile):
    """The last rejected operations on the object; to write or truncate it clears it."""

    __slots__ = ("_of_link",)

    def __init__(self, subject: Subject, *, of_link: bool) -> None:
        super().__init__(subject, "error_log")
        self._of_link = of_link

    def permissions(self, status: os.stat_result) -> int:
        if self._of_link:  # whose pin opens to those alone who may read and write it
            return links_bits(status) | links_bits(status) >> 1
        return super().permissions(status)

    def render(self, obj: Object) -> bytes:
        return self.subject.logs.read(obj).encode()

    def accept(self, obj: Object, text: str, opening: Opening) -> None:
        self.subject.logs.clear(obj)

    def change(self, change: Change, caller: Caller) -> None:
        if change.size == 0:
            with self.subject.open() as obj:
                self.emptied(obj)

    def emptied(self, obj: Object) -> None:
        self.subject.logs.clear(obj)


class Frozen(WritableFile):
    """Whether system calls may change the map no more: `0` or `1`. Writing `1` is for good."""

    __slots__ = ("_view",)

    def __init__(self, subject: Subject, view: MapView) -> None:
        super().__init__(subject, "frozen")
        self._view = view

    def permissions(self, status: os.stat_result) -> int:
        return status.st_mode & (0o444 if self._view.frozen(self.subject) else 0o666)

    def render(self, obj: Object) -> bytes:
        return b"%d\n" % (isinstance(obj, Map) and obj.frozen())

    def accept(self, obj: Object, text: str, opening: Opening) -> None:
        assert isinstance(obj, Map)  # only maps are given this file
        frozen = obj.frozen()
        match text.strip():
            case "1" if not frozen:
                self._view.freeze(obj)
            case "0" if frozen:
                raise refusal(errno.EPERM, "a frozen map stays frozen")
            case "0" | "1":
                pass
            case _:
                raise Refused("expected 0 or 1")


class FormatFile(WritableFile):
    """`format`: how the keys and values of a map are shown, `TARGET: FORMAT` lines. A line that is
    written changes its setting; it is refused as a whole if any of its lines does not fit."""

    __slots__ = ("_place", "_view")

    def __init__(self, place: Place, subject: Subject, view: MapView) -> None:
        super().__init__(subject, "format")
        self._place = place
        self._view = view

    def render(self, obj: Object) -> bytes:
        shown = {"value": AUTO} if self._view.live else {"key": AUTO, "value": AUTO}
        shown |= self._view.settings
        if self._view.per_cpu:
            shown = shown | {PERCPU: shown.get(PERCPU, EACH)}
        return "".join(f"{target}: {name}\n" for target, name in shown.items()).encode()

    def accept(self, obj: Object, text: str, opening: Opening) -> None:
        given = parse_settings(text)
        written = {target: name for target, (name, _at) in given.items()}
        try:
            self._place.remember(self._view.change(written))
        except Unfit as error:
            at = given[error.target][1] if error.target in given else 0
            raise Refused(error.reason, at) from None
