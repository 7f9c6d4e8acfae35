"""Gathering what looks alike, so that a picture of hundreds of objects can be read.

A small graph is drawn as it is, a box for each node. In a larger one:

1. Global data of one program (`.rodata`, `.bss`, …) is told in the program's box.
2. Nodes of the same type and name that are tied in the same way to the same, or to others that are
   alike in turn, become the rows of one table. What belongs to one of them alone, as its link and
   what that is attached to, is told in the same row.
3. Maps that the very same programs use become rows of one table.
4. Step 2 is repeated for what is left, and names may differ now.
5. A map that so many boxes use that the lines to it would hide all else is told in their boxes.

What is alike in step 2 is the coarsest equitable partition, which colour refinement finds
(https://en.wikipedia.org/wiki/Colour_refinement_algorithm): all nodes of a class have the same
number of ties to each other class. So a line from a table holds for each of its rows.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field

from fusefs.text.graph_model import Edge, Graph, Key, Kind, Label, Node, rank

# Graphs of so many nodes are drawn as they are.
SMALL = 16
# So many that are alike are gathered; fewer are drawn one by one.
_ALIKE = 4
# So many of a kind are told in one row of a table.
_IN_A_ROW = 4
# Maps of the same users are gathered when that saves so many lines.
_SAVED = 3
# A map that more boxes use than this is told in each of them.
_HUB = 10

# The sections of global data, as libbpf names the maps that hold them: the first characters of the
# name of the object file, and the name of the section (internal_map_name in libbpf.c).
_GLOBAL_DATA = re.compile(r"\.(rodata|bss|data|kconfig)\b")
_NUMBER = re.compile(r"[0-9]{1,18}")

Tie = tuple[bool, Label, Key]  # whether it goes out, its label, the other end
Colours = dict[Key, int]
Block = list[list[Key]]  # classes whose nodes are in one table, each in a column
Rows = list[list[list[Key]]]  # a table: in each row a cell for each column


@dataclass(slots=True)
class Box:
    """What is drawn in one place: a node, or a table with a row for each of many.

    Each row has a cell for each column, and a cell the nodes that belong there, all of one kind.
    `notes` are maps that it uses and that no line leads to.
    """

    rows: list[list[list[Node]]]
    notes: list[Node] = field(default_factory=list)
    users: int = 0  # how many boxes use it whose lines are not drawn

    @property
    def first(self) -> Node:
        return min(self.nodes(), key=lambda node: rank(node.key))

    @property
    def single(self) -> Node | None:
        """The only node, if it is no table."""
        return self.rows[0][0][0] if len(self.rows) == 1 else None

    def nodes(self) -> Iterator[Node]:
        return (node for row in self.rows for cell in row for node in cell)


Line = tuple[Box, Box, Label]


@dataclass(slots=True)
class Picture:
    """What is drawn: boxes, and lines from one to another with a label. `data` is the global data
    of programs."""

    boxes: list[Box]
    lines: list[Line]
    data: dict[Key, list[Node]]


def gather(graph: Graph) -> Picture:
    """The picture of a graph."""
    return _Gathering(graph).picture()


class _Gathering:
    def __init__(self, graph: Graph) -> None:
        self.nodes = {node.key: node for node in sorted(graph.nodes, key=lambda n: rank(n.key))}
        self.focus = graph.focus
        self.ties: dict[Key, set[Tie]] = {key: set() for key in self.nodes}
        for edge in graph.edges:
            self._tie(edge)
        self.data: dict[Key, list[Node]] = defaultdict(list)
        self.boxes: list[Box] = []
        self.left = dict(self.nodes)  # what is in no box yet
        self.placed: dict[Key, str] = {}  # box and column of what is in a table

    def _tie(self, edge: Edge) -> None:
        if edge.source in self.nodes and edge.target in self.nodes:
            self.ties[edge.source].add((True, edge.label, edge.target))
            self.ties[edge.target].add((False, edge.label, edge.source))

    def picture(self) -> Picture:
        if len(self.nodes) > SMALL:
            self._tell_data()
            self._gather_alike(lambda node: _NUMBER.sub("", node.name))
            self._gather_maps()
            self._gather_alike(lambda _node: "")
        self.boxes += [Box([[[node]]]) for node in self.left.values()]
        self.boxes.sort(key=lambda box: rank(box.first.key))
        lines = self._lines()
        if len(self.nodes) > SMALL:
            lines = _without_hubs(lines)
        return Picture(self.boxes, lines, self.data)

    def _lines(self) -> list[Line]:
        """The ties between boxes."""
        number = {node.key: n for n, box in enumerate(self.boxes) for node in box.nodes()}
        lines = {
            (number[key], number[other], label)
            for key in number
            for out, label, other in self.ties[key]
            if out and (number[key] != number[other] or self.boxes[number[key]].single)
        }
        return [(self.boxes[source], self.boxes[to], label) for source, to, label in sorted(lines)]

    # Global data.

    def _tell_data(self) -> None:
        for key, node in self.nodes.items():
            user = self._only_user(key)
            if user and key != self.focus and _GLOBAL_DATA.search(node.name):
                self.data[user].append(node)
                self.ties[user].remove((True, Label.USES, key))
                del self.ties[key], self.left[key]

    def _only_user(self, key: Key) -> Key | None:
        if key[0] != Kind.MAP or len(self.ties[key]) != 1:
            return None
        ((out, label, user),) = self.ties[key]
        return user if (out, label, user[0]) == (False, Label.USES, Kind.PROGRAM) else None

    # What is alike.

    def _gather_alike(self, name: Callable[[Node], str]) -> None:
        """Make tables of what is alike; nodes with different names in the sense of `name` are
        not."""
        classes: dict[int, list[Key]] = defaultdict(list)
        for key, colour in self._refined(name).items():
            classes[colour].append(key)
        alike = [members for members in classes.values() if len(members) >= _ALIKE]
        blocks = self._blocks([members for members in alike if members[0] in self.left])
        for table in self._clear([self._rows(block) for block in blocks]):
            self._add_table(table)

    def _refined(self, name: Callable[[Node], str]) -> Colours:
        """A colour for each node, the same for those that are alike."""
        colours = _numbered({key: self._looks(key, name) for key in self.ties})
        while True:
            refined = _numbered(
                {
                    key: (colours[key], *sorted((o, label, colours[to]) for o, label, to in ties))
                    for key, ties in self.ties.items()
                }
            )
            if max(refined.values(), default=0) == max(colours.values(), default=0):
                return colours
            colours = refined

    def _looks(self, key: Key, name: Callable[[Node], str]) -> Hashable:
        if key == self.focus:
            return key
        node = self.nodes[key]
        if key in self.placed:
            return self.placed[key]
        named = node.kind in (Kind.MAP, Kind.PROGRAM)
        return node.kind, node.type, name(node) if named else "", len(self.data.get(key, ()))

    def _blocks(self, classes: list[list[Key]]) -> list[Block]:
        """Classes that make a table together: where each row is of nodes that are tied to one
        another, and to no other row."""
        blocks: list[Block] = []
        for members in classes:
            block = [members]
            for other in list(blocks):
                if self._make_rows(other + block):
                    blocks.remove(other)
                    block = other + block
            blocks.append(block)
        return blocks

    def _clear(self, tables: list[Rows]) -> list[Rows]:
        """The tables, or parts of them, from which each line holds for all rows: all rows are tied
        to the same outside, be it nodes or columns of other tables."""
        while True:
            places = self.placed | {
                key: f"{number} {column} of the new"
                for number, rows in enumerate(tables)
                for row in rows
                for column, cell in enumerate(row)
                for key in cell
            }
            parts = [part for rows in tables for part in self._parts(rows, places)]
            if parts == tables:
                return tables
            tables = parts

    def _parts(self, rows: Rows, places: dict[Key, str]) -> list[Rows]:
        """The rows by what they are tied to outside; those that are too few for a table are left
        out."""
        own = {key for row in rows for cell in row for key in cell}

        def outside(key: Key) -> frozenset[Hashable]:
            ties = self.ties[key]
            return frozenset((o, what, places.get(to, to)) for o, what, to in ties if to not in own)

        parts: dict[Hashable, Rows] = defaultdict(list)
        for row in rows:
            parts[tuple(frozenset(map(outside, cell)) for cell in row)].append(row)
        return [part for part in parts.values() if len(part) >= _ALIKE]

    def _make_rows(self, block: Block) -> bool:
        """Whether these classes fall into rows that look all the same."""
        rows = self._rows(block)
        if len(rows) < _ALIKE:
            return False
        return all(0 < len(cell) <= _IN_A_ROW for row in rows for cell in row)

    def _rows(self, block: Block) -> Rows:
        """The rows: for each set of nodes that hang together, those of each class."""
        column = {key: number for number, members in enumerate(block) for key in members}
        rows = []
        for together in self._components(column):
            row: list[list[Key]] = [[] for _ in block]
            for key in sorted(together, key=rank):
                row[column[key]].append(key)
            rows.append(row)
        return rows

    def _components(self, keys: Iterable[Key]) -> Iterator[list[Key]]:
        """The sets of these nodes that hang together by ties among them."""
        unseen = dict.fromkeys(keys)
        while unseen:
            first = next(iter(unseen))
            del unseen[first]
            found = [first]
            for key in found:
                for _out, _label, other in self.ties[key]:
                    if other in unseen:
                        del unseen[other]
                        found.append(other)
            yield found

    def _add_table(self, rows: Rows) -> None:
        """Put these nodes into a box of their own."""
        order = sorted(range(len(rows[0])), key=lambda column: rank(rows[0][column][0]))
        box = Box([[[self.nodes[key] for key in row[n]] for n in order] for row in rows])
        box.rows.sort(key=lambda row: (_natural(row[0][0].name), rank(row[0][0].key)))
        for row in box.rows:
            for column, cell in enumerate(row):
                for node in cell:
                    self.placed[node.key] = f"{len(self.boxes)} {column}"
                    del self.left[node.key]
        self.boxes.append(box)

    # Maps of the same users.

    def _gather_maps(self) -> None:
        twins: dict[frozenset[Tie], list[Key]] = defaultdict(list)
        for key in self.left:
            if key[0] == Kind.MAP and key != self.focus:
                twins[frozenset(self.ties[key])].append(key)
        for ties, keys in twins.items():
            if (len(keys) - 1) * max(len(ties), 1) >= _SAVED:
                self._add_table([[[key]] for key in keys])


def _natural(name: str) -> list[tuple[str, int]]:
    """What to sort names by, so that numbers in them count as such."""
    parts = _NUMBER.split(name)
    return [*zip(parts, [*map(int, _NUMBER.findall(name)), 0], strict=True)]


def _numbered(looks: dict[Key, Hashable]) -> Colours:
    """Equal looks made equal numbers, from 0 on."""
    numbers: dict[Hashable, int] = {}
    return {key: numbers.setdefault(look, len(numbers)) for key, look in looks.items()}


def _without_hubs(lines: list[Line]) -> list[Line]:
    """The lines without those to maps that too many use, which are noted where they come from."""
    users = Counter(id(target) for _source, target, label in lines if label == Label.USES)
    kept = []
    for source, target, label in lines:
        if label == Label.USES and users[id(target)] > _HUB:
            source.notes += target.nodes()
            target.users += 1
        else:
            kept.append((source, target, label))
    return kept
