"""`graph.dot` and `graph.svg`: a picture of all in the kernel, or of what is tied to one object."""

from __future__ import annotations

import contextlib
import functools
import html
import os
from collections.abc import Callable, Generator, Iterator

from fusefs.bpf.credentials import Caller
from fusefs.bpf.graphviz import Drawing
from fusefs.bpf.task import Task
from fusefs.text.graph import Graph, Key, dot
from fusefs.text.jsontext import escape_controls
from fusefs.tree.context import Context
from fusefs.tree.files import ObjectFile
from fusefs.tree.graph_facts import collected
from fusefs.tree.node import FRESH, Attributes, Handle, Opening
from fusefs.tree.stream_files import Pieces
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

    def compose(self) -> Generator[int | None, None, str]:
        """The text, in the end. Before that None, where others may have a turn, or a descriptor
        that can be read when there is something to do."""
        context = self.subject.context
        yield from _free(context)
        graph = Graph()
        for collected_so_far in collected(context, self._base(), self._focus):
            graph = collected_so_far or graph
            yield None
        yield from _free(context)
        # Thousands of objects take their time, in a thread of its own; one at a time, so that this
        # one is not kept waiting by many.
        task = context.composing = Task(functools.partial(_text, graph))
        try:
            while not task.done:
                yield task.ended
            return task.result()
        finally:
            task.leave()


def _free(context: Context) -> Iterator[int]:
    """Waits as long as another text is being made."""
    while (task := context.composing) and (ended := task.watch()) is not None:
        try:
            yield ended
        finally:
            os.close(ended)


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

    def __init__(self, compose: Callable[[], Generator[int | None, None, str]]) -> None:
        self._compose = compose
        self._awaited: int | None = None
        super().__init__(self._pieces_of)

    @property
    def awaited(self) -> int | None:
        return self._awaited

    def _pieces_of(self) -> Generator[bytes, None, None]:
        text = yield from self._composed()
        yield text.encode()

    def _composed(self) -> Generator[bytes, None, str]:
        """The text; before that nothing, as long as it is not there."""
        with contextlib.closing(self._compose()) as steps:
            while True:
                try:
                    self._awaited = next(steps)
                    yield b""
                except StopIteration as end:
                    return str(end.value)
                finally:
                    self._awaited = None  # the number may be another's soon

    def close(self) -> None:
        self._awaited = None
        super().close()


class Drawn(Composed):
    """A picture that is being drawn."""

    _begun = False

    def filler(self, offset: int, size: int) -> bytes:
        # Between its first line and its root element, XML may have any number of empty lines. So
        # who reads has something again and again: most programs give up on a read that ends
        # without, and one that does not end could not be interrupted.
        made = self._start + len(self._text)
        if self._current == (offset, size) and offset == made and not self._begun:
            self._text, self._start = b"\n", offset
        return super().filler(offset, size)

    def _pieces_of(self) -> Generator[bytes, None, None]:
        self._begun = False
        yield _DECLARATION
        try:
            text = yield from self._composed()
            yield from self._room()
            with Drawing([text]) as drawing:
                try:
                    yield from self._drawn(drawing)
                finally:
                    self._awaited = None  # the number may be another's soon
        except OSError as error:
            if self._begun:
                raise
            self._begun = True
            yield _notice(error.strerror or str(error))

    def _room(self) -> Iterator[bytes]:
        """Waits until there is room for another drawing."""
        while (ended := Drawing.full()) is not None:
            self._awaited = ended
            try:
                yield b""
            finally:
                self._awaited = None
                os.close(ended)

    def _drawn(self, drawing: Drawing) -> Iterator[bytes]:
        """The picture, without the declaration that it has itself."""
        head: bytes | None = b""
        while (piece := drawing.read()) != b"":
            self._awaited = drawing.awaited
            if piece is None:
                yield b""
                continue
            if head is not None:
                head += piece
                _, end, piece = head.partition(b"?>")
                if not end:
                    continue
                head = None
            self._begun = True
            yield piece


_DECLARATION = b'<?xml version="1.0" encoding="UTF-8" standalone="no"?>\n'


def _notice(reason: str) -> bytes:
    """A picture that says why there is none."""
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" width="900" height="40">'
        f'<text x="10" y="25" font-family="sans-serif">{html.escape(escape_controls(reason))}'
        "</text></svg>\n"
    ).encode("utf-8", "replace")
