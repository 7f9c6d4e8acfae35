"""The picture of BPF state, as text for Graphviz: what is attached where, which program uses which
map, who calls whom. `dot -Tsvg` makes an SVG of it.

Source: https://graphviz.org/doc/info/lang.html. Whatever comes from a node stands in HTML-like
labels only (`graph_escape`); ids of nodes are made of kinds and numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from fusefs.text.graph_escape import cut, html
from fusefs.text.graph_gather import Box, Picture, gather
from fusefs.text.graph_labels import LOOKS, label
from fusefs.text.graph_model import Edge, Graph, Key, Kind, Label, Node

__all__ = ["Edge", "Graph", "Key", "Kind", "Label", "Node", "dot"]

# From left to right, parts that hang together packed like stones of a wall.
_LAYOUT = """\
rankdir=LR
pack=4
packmode="node"
ranksep=0.45
nodesep=0.12
bgcolor="white"
fontname="Helvetica"
labelloc=t
labeljust=l
node [fontname="Helvetica" fontsize=11 margin="0.06,0.03" height=0.2 width=0.2 penwidth=1]
edge [fontname="Helvetica" fontsize=8 color="#6f6f6f" arrowsize=0.6 penwidth=0.9]
"""

# In a picture of more boxes than this, they are as small as can be.
_MANY = 80

# How lines look; the others are plain.
_LINES: dict[Label, str] = {
    Label.ATTACHED: 'color="#44546a" penwidth=1.2',
    Label.RUNS: 'color="#44546a" penwidth=1.2',
    Label.TAIL_CALL: 'color="#c2410c" penwidth=1.2 style=dashed',
    Label.INNER_MAP: 'color="#a86400" penwidth=1.6',
}
# What the title tells of them.
_LEGEND: dict[Label, str] = {
    Label.TAIL_CALL: '<FONT COLOR="#c2410c">╌╌▸ tail call</FONT>',
    Label.INNER_MAP: '<FONT COLOR="#a86400">━━▸ map in a map</FONT>',
}


def dot(graph: Graph) -> Iterator[str]:
    """The lines of the DOT text. The same graph gives the same text, in whatever order its nodes
    and edges come."""
    picture = gather(graph)
    terse = len(picture.boxes) > _MANY
    names = {id(box): _name(number, box) for number, box in enumerate(picture.boxes)}
    yield 'digraph "BPF" {\n'
    yield _LAYOUT
    yield f"label=<{_title(graph, picture)}>\n"
    for box in picture.boxes:
        yield f"{names[id(box)]} [{_shape(box, graph.focus)} label=<\n"
        yield from (f"{line}\n" for line in label(box, picture.data, terse=terse))
        yield ">]\n"
    for source, target, what in picture.lines:
        tip = f'tooltip="{_short(source)} - {what} - {_short(target)}"'
        yield f"{names[id(source)]} -> {names[id(target)]} [{_LINES.get(what, '')} {tip}]\n"
    yield "}\n"


def _name(number: int, box: Box) -> str:
    """What DOT calls a box, and viewers show where there is no better tooltip."""
    return f'"{number}: {_short(box)}"'


def _short(box: Box) -> str:
    """A box in few words, none of which came from a node."""
    kind, identity = box.first.key
    if not box.single:
        return f"{sum(1 for _node in box.nodes())} objects in a table"
    return f"{kind} {identity}" if isinstance(identity, int) else kind


def _shape(box: Box, focus: Key | None) -> str:
    if not box.single:
        return "shape=plain"
    colours = LOOKS[box.single.kind]
    width = " penwidth=3" if box.single.key == focus else ""
    return (
        f'shape={colours.shape} style="{colours.style}" '
        f'fillcolor="{colours.fill}" color="{colours.line}"{width}'
    )


def _title(graph: Graph, picture: Picture) -> str:
    """The title, how many of each kind there are, and what lines mean that are not plain."""
    count = Counter(node.kind for node in graph.nodes)
    counts = ", ".join(
        f"{count[kind]} {kind}{'s'[: count[kind] > 1]}" for kind in Kind if count[kind]
    )
    drawn = {what for _source, _target, what in picture.lines}
    legend = "".join(f" &#160; {text}" for what, text in _LEGEND.items() if what in drawn)
    return (
        f'<FONT POINT-SIZE="14"><B>{html(cut(graph.title, 80))}</B></FONT>'
        f'<FONT POINT-SIZE="9"> &#160; {counts}{legend}</FONT>'
    )
