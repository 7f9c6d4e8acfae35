"""What stands in the boxes of a picture, as HTML-like labels of Graphviz.

Source: https://graphviz.org/doc/info/shapes.html#html. Whatever comes from a node goes through
`graph_escape`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fusefs.text.graph_escape import cut, html, link, tooltip
from fusefs.text.graph_gather import Box
from fusefs.text.graph_model import Key, Kind, Node

_SMALL_TYPE = 8
# Characters in a line of small type.
_WIDTH = 40
# Rows of a table that are drawn, and items of a list in a box.
_MOST_ROWS = 240
_MOST_LISTED = 3
# A table with more rows than this is folded into stripes side by side, about as wide as a screen.
_TALL = 12
_ASPECT = 1.5
# Estimates in points, for nothing but the number of stripes.
_ROW_HEIGHT, _CHARACTER = 17, 6.5


@dataclass(frozen=True, slots=True)
class Look:
    """How nodes of a kind are drawn: Graphviz's shape and style, and colours. They differ in
    lightness too, for those who see no colours and for print."""

    shape: str
    style: str
    fill: str
    line: str
    text: str = "#1a1a1a"
    faint: str = "#555555"


LOOKS: dict[Kind, Look] = {
    Kind.ATTACHMENT: Look("box", "filled", "#44546a", "#44546a", "#ffffff", "#e0e4ea"),
    Kind.LINK: Look("box", "rounded,filled", "#ffffff", "#7f7f7f"),
    Kind.PROGRAM: Look("box", "filled", "#cfe2f3", "#1f5a94"),
    Kind.MAP: Look("cylinder", "filled", "#fdebc8", "#a86400"),
    Kind.BTF: Look("note", "filled", "#eeeeee", "#7f7f7f"),
}


def label(box: Box, data: dict[Key, list[Node]], *, terse: bool) -> Iterator[str]:
    """The label of a box, without the angle brackets around it; `data` is the global data of
    programs. When it is `terse`, details and pins are in the tooltip only."""
    if box.single:
        yield from _node_label(box.single, box, data.get(box.single.key, ()), terse=terse)
    else:
        yield from _table(box, data)


# A box with one node.


def _node_label(node: Node, box: Box, data: Sequence[Node], *, terse: bool) -> Iterator[str]:
    colours = LOOKS[node.kind]
    yield f'<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="1"{_linked(node)}>'
    if node.kind == Kind.MAP:
        yield '<TR><TD HEIGHT="7" CELLPADDING="0"></TD></TR>'  # the lid is as high
    name, what = _heading(node)
    title = f"<B>{html(cut(name))}</B>"
    if terse and node.kind != Kind.ATTACHMENT and what:
        yield _row(f'{title} <FONT POINT-SIZE="8">{html(cut(what))}</FONT>', colours.text)
    else:
        yield _row(title, colours.text)
        if what and not terse:
            yield _row(html(cut(what)), colours.text, 9)
    lines = [] if terse else [*_filled(node.details), *_listed(node.pins, _WIDTH)]
    if data:
        lines += _filled([*_told("with", data)])
    lines += _notes(box)
    yield from (_row(html(line), colours.faint, _SMALL_TYPE) for line in lines)
    yield "</TABLE>"


def _heading(node: Node) -> tuple[str, str]:
    """What stands first, in bold, and what is below it."""
    if node.kind == Kind.ATTACHMENT:
        return (node.name, node.type) if node.name else (node.type, "")
    what = f"{node.type} {node.kind} {node.id}"
    return (node.name, what) if node.name else (what, "")


def _row(text: str, colour: str, size: int = 11) -> str:
    return f'<TR><TD><FONT POINT-SIZE="{size}" COLOR="{colour}">{text}</FONT></TD></TR>'


def _filled(words: Sequence[str]) -> Iterator[str]:
    """Words put together to lines."""
    line = ""
    for word in (cut(word, _WIDTH) for word in words):
        if line and len(line) + len(word) + 3 > _WIDTH:
            yield line
            line = word
        else:
            line = f"{line} · {word}" if line else word
    if line:
        yield line


def _listed(texts: Sequence[str], longest: int) -> Iterator[str]:
    """The first texts, and how many more there are."""
    yield from (cut(text, longest) for text in texts[:_MOST_LISTED])
    if len(texts) > _MOST_LISTED:
        yield f"and {len(texts) - _MOST_LISTED} more"


def _told(what: str, nodes: Sequence[Node]) -> Iterator[str]:
    """Nodes that are told of in the box of another."""
    texts = _listed([_short(node) for node in nodes], _WIDTH)
    return (text if number else f"{what} {text}" for number, text in enumerate(texts))


def _notes(box: Box) -> Iterator[str]:
    """What it uses, or by how many it is used, where no lines are drawn."""
    if box.notes:
        yield from _filled([*_told("uses", box.notes)])
    if box.users:
        yield f"used where {box.users} boxes say so"


def _short(node: Node) -> str:
    """A node in few words."""
    return f"{cut(node.name, 20)} {node.id}".strip()


def _linked(node: Node) -> str:
    """The attributes that make a table or a cell lead to the node, and show all of it."""
    about = f"{node.type} {node.kind} {node.id}" if node.kind != Kind.ATTACHMENT else node.type
    tip = tooltip(node.name, about, *node.details, *node.pins)
    return f' TITLE="{tip}" HREF="{link(node.href)}"'


# A table with a row for each of many.


def _table(box: Box, data: dict[Key, list[Node]]) -> Iterator[str]:
    rows = box.rows[:_MOST_ROWS]
    columns = [_Column.of(box, number) for number in range(len(rows[0]))]
    stripes = _stripes(len(rows), sum(column.width for column in columns))
    height = math.ceil(len(rows) / stripes)
    stripes = math.ceil(len(rows) / height)
    yield '<TABLE BORDER="0" CELLBORDER="1" CELLSPACING="0" CELLPADDING="2" COLOR="#9a9a9a">'
    yield f"<TR>{''.join(column.header() for column in columns) * stripes}</TR>"
    for start in range(height):
        cells = (
            _cell(row[number], column, data)
            for row in rows[start::height]
            for number, column in enumerate(columns)
        )
        yield f"<TR>{''.join(cells)}</TR>"
    yield from _under(box, stripes * len(columns))
    yield "</TABLE>"


def _stripes(rows: int, characters: int) -> int:
    """How many stripes make a table as wide as it should be for its height."""
    if rows <= _TALL:
        return 1
    area = rows * _ROW_HEIGHT * characters * _CHARACTER
    return max(1, round(math.sqrt(area * _ASPECT) / (characters * _CHARACTER)))


@dataclass(frozen=True, slots=True)
class _Column:
    """A column: of which kind it is, and what all in it have in common, which its head tells."""

    kind: Kind
    type: str  # empty when they differ
    name: str
    count: int
    width: int  # in characters, about

    @classmethod
    def of(cls, box: Box, number: int) -> _Column:
        nodes = [node for row in box.rows for node in row[number]]
        names, types = {node.name for node in nodes}, {node.type for node in nodes}
        name = nodes[0].name if len(names) == 1 else ""
        kind = nodes[0].kind
        column = cls(kind, nodes[0].type if len(types) == 1 else "", name, len(nodes), 0)
        cells = max(len(", ".join(map(column.text, row[number]))) for row in box.rows[:_MOST_ROWS])
        return cls(kind, column.type, name, len(nodes), max(cells, *map(len, column.title())) + 2)

    def title(self) -> tuple[str, str]:
        """What all of them are, and their name if all have the same."""
        kind = "" if self.kind == Kind.ATTACHMENT else self.kind
        words = f"{self.type} {kind}".strip() or self.kind
        return f"{self.count} × {words}", cut(self.name, 20)

    def header(self) -> str:
        colours = LOOKS[self.kind]
        what, name = self.title()
        text = f"<B>{html(name or what)}</B>"
        if name:
            text += f'<BR/><FONT POINT-SIZE="8">{html(what)}</FONT>'
        return (
            f'<TD BGCOLOR="{colours.fill}"><FONT POINT-SIZE="10" COLOR="{colours.text}">'
            f"{text}</FONT></TD>"
        )

    def text(self, node: Node) -> str:
        """What is to be said of one in this column."""
        words = [] if self.name or not node.name else [cut(node.name, 40)]
        if node.kind != Kind.ATTACHMENT:
            words += [str(node.id)] if self.type else [node.type, str(node.id)]
        return " ".join(words)


def _cell(nodes: Sequence[Node], column: _Column, data: dict[Key, list[Node]]) -> str:
    """A cell; when there are several nodes in it, each a line with a link of its own."""
    if len(nodes) == 1:
        return f'<TD ALIGN="LEFT"{_linked(nodes[0])}>{_line(nodes[0], column, data)}</TD>'
    lines = "".join(
        f'<TD BORDER="0"{_linked(node)}>{_line(node, column, data)}</TD>' for node in nodes
    )
    table = '<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="1">'
    return f'<TD ALIGN="LEFT" CELLPADDING="0">{table}<TR>{lines}</TR></TABLE></TD>'


def _line(node: Node, column: _Column, data: dict[Key, list[Node]]) -> str:
    text = f'<FONT POINT-SIZE="9">{html(column.text(node))}</FONT>'
    also = [cut(pin, 24) for pin in node.pins[:1]] + [
        _short(part) for part in data.get(node.key, ())
    ]
    if also:
        text += f'<FONT POINT-SIZE="7" COLOR="#555555">  {html(" ".join(also))}</FONT>'
    return text


def _under(box: Box, width: int) -> Iterator[str]:
    """What stands below the rows of a table."""
    texts = [*_notes(box)]
    if len(box.rows) > _MOST_ROWS:
        texts.append(f"and {len(box.rows) - _MOST_ROWS} more rows")
    for text in texts:
        yield (
            f'<TR><TD COLSPAN="{width}" ALIGN="LEFT">'
            f'<FONT POINT-SIZE="{_SMALL_TYPE}" COLOR="#555555">{html(text)}</FONT></TD></TR>'
        )
