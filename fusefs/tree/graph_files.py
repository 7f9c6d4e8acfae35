"""`graph.dot` and `graph.svg`: a picture of all in the kernel, or of what is tied to one object."""

from __future__ import annotations

import functools
import html
from collections.abc import Callable, Iterator

from fusefs.bpf.credentials import Caller
from fusefs.bpf.graphviz import Drawing
from fusefs.bpf.task import Task
from fusefs.text.graph import Graph, Key, dot
from fusefs.text.jsontext import escape_controls
from fusefs.tree.files import ObjectFile, Pieces
from fusefs.tree.graph_facts import collected
from fusefs.tree.node import FRESH, Attributes, Handle, Opening
from fusefs.tree.subject import Subject

Base = Callable[[], tuple[str, ...] | None]


class GraphDot(ObjectFile):
    """The picture as text for Graphviz. It is root's: it shows what is in the whole kernel."""

    __slots__ = ("_base", "_focus")

    def __init__(self, subject: Subject, name: str, base: Base, focus: Key | None = None) -> None:
        """`base` is the directory of it, from which links lead on; `focus` the object that it is
        about, or None for all."""
        super().__init__(subject, name)
        self._base = base
        self._focus = focus

    @property
    def roots(self) -> bool:
        return True

    @property
    def listed(self) -> bool:
        # Who looks at everything below a directory would go through all of the kernel for each
        # object, and have a program draw it.
        return self._focus is None

    def attributes(self) -> Attributes:
        return self.basics(self.subject.status())

    def prepare(self) -> Iterator[int | None]:
        return self.subject.context.survey.renew(FRESH)

    def open(self, flags: int, caller: Caller) -> Handle:
        self.admit(Opening(flags, caller))
        return Composed(self.compose)

    def compose(self) -> Iterator[Task[str] | None]:
        """Begins to make the text, in a thread of its own: hundreds of objects take their time.
        Before that None, where others may have a turn."""
        for graph in collected(self.subject.context, self._base(), self._focus):
            yield None if graph is None else Task(functools.partial(_text, graph))


_HINT = "// graph.svg, in the same directory, is this drawn by Graphviz.\n"


def _text(graph: Graph) -> str:
    return "".join([_HINT, *dot(graph)])


class GraphSvg(GraphDot):
    """The picture, drawn by Graphviz; where that cannot be, the reason in its place."""

    __slots__ = ()

    def open(self, flags: int, caller: Caller) -> Handle:
        self.admit(Opening(flags, caller))
        return Drawn(self.compose)


class Composed(Pieces):
    """A text that is being made."""

    def __init__(self, compose: Callable[[], Iterator[Task[str] | None]]) -> None:
        self._compose = compose
        self._task: Task[str] | None = None
        super().__init__(self._pieces_of)

    @property
    def awaited(self) -> int | None:
        return self._task.ended if self._task else None

    def _pieces_of(self) -> Iterator[bytes]:
        self.close()
        for text in self._composed():
            yield text.encode()

    def _composed(self) -> Iterator[str]:
        """The text, whole; before that an empty one as long as it is not there."""
        for task in self._compose():
            self._task = task
            yield ""
        while self._task and not self._task.done:
            yield ""
        if self._task:
            task, self._task = self._task, None
            task.leave()
            yield task.result()

    def close(self) -> None:
        if self._task:
            self._task.leave()
            self._task = None


class Drawn(Composed):
    """A picture that is being drawn."""

    def __init__(self, compose: Callable[[], Iterator[Task[str] | None]]) -> None:
        self._drawing: Drawing | None = None
        self._begun = False
        super().__init__(compose)

    @property
    def awaited(self) -> int | None:
        return self._drawing.awaited if self._drawing else super().awaited

    def filler(self, offset: int) -> bytes:
        # Between its first line and its root element, XML may have any number of empty lines. So
        # who reads has something again and again: most programs give up on a read that ends
        # without, and one that does not end could not be interrupted.
        if self._begun or offset != self._start + len(self._piece):
            return b""
        self._piece, self._start = b"\n", offset
        return self._piece

    def _pieces_of(self) -> Iterator[bytes]:
        self.close()
        self._begun = False
        yield _DECLARATION
        try:
            for text in self._composed():
                if not text:
                    yield b""
            self._drawing = Drawing([text])
            head: bytes | None = b""
            while (piece := self._drawing.read()) != b"":
                if piece is None:
                    yield b""
                    continue
                if head is not None:  # its own declaration is left out
                    head += piece
                    _, end, piece = head.partition(b"?>")
                    if not end:
                        continue
                    head = None
                self._begun = True
                yield piece
        except OSError as error:
            if self._begun:
                raise
            self._begun = True
            yield _notice(error.strerror or str(error))

    def close(self) -> None:
        super().close()
        if self._drawing:
            self._drawing.close()
            self._drawing = None


_DECLARATION = b'<?xml version="1.0" encoding="UTF-8" standalone="no"?>\n'


def _notice(reason: str) -> bytes:
    """A picture that says why there is none."""
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" width="900" height="40">'
        f'<text x="10" y="25" font-family="sans-serif">{html.escape(escape_controls(reason))}'
        "</text></svg>\n"
    ).encode("utf-8", "replace")
