"""The facts of the picture: from what is in the kernel to nodes and edges."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

from fusefs.bpf import names
from fusefs.bpf.btf_object import BtfObject
from fusefs.bpf.link import Link
from fusefs.bpf.map import Map
from fusefs.bpf.object import Object
from fusefs.bpf.program import Program
from fusefs.bpf.survey import Snapshot
from fusefs.text.graph import Edge, Graph, Key, Kind, Label, Node
from fusefs.text.jsontext import printable
from fusefs.tree.attachments import Attachment, attachment
from fusefs.tree.context import Context
from fusefs.tree.targets import text_to

_KINDS: dict[type[Object], Kind] = {
    Map: Kind.MAP,
    Program: Kind.PROGRAM,
    Link: Kind.LINK,
    BtfObject: Kind.BTF,
}
_TITLE = "BPF objects"


def collected(
    context: Context, base: Sequence[str] | None, focus: Key | None
) -> Iterator[Graph | None]:
    """The graph of all objects, for a file in the directory `base` of the mount; before it None,
    where others may have a turn. A Kind.BTF object is in it if it is the `focus`."""
    facts = _Facts(context, base)
    yield from facts.objects(context.survey.last)
    yield from facts.attachments(context.survey.last)
    if focus and focus[0] == Kind.BTF:
        facts.users_of(context.survey.last, focus)
    facts.graph.title = _TITLE
    facts.graph.focus = focus
    yield facts.graph if focus is None else tied_to(facts.graph, focus)


def tied_to(graph: Graph, focus: Key) -> Graph:
    """What leads to `focus`, and what that leads to, at whatever distance."""
    ways: tuple[dict[Key, list[Key]], dict[Key, list[Key]]] = defaultdict(list), defaultdict(list)
    for edge in graph.edges:
        ways[0][edge.source].append(edge.target)
        ways[1][edge.target].append(edge.source)
    kept = {focus}
    for ties in ways:
        waiting, seen = [focus], {focus}
        while waiting:
            for key in ties.get(waiting.pop(), ()):
                if key not in seen:
                    seen.add(key)
                    waiting.append(key)
        kept |= seen
    nodes = [node for node in graph.nodes if node.key in kept]
    edges = [edge for edge in graph.edges if edge.source in kept and edge.target in kept]
    return Graph(nodes, edges, graph.title, focus)


class _Facts:
    """Puts a graph together."""

    def __init__(self, context: Context, base: Sequence[str] | None) -> None:
        self.graph = Graph()
        self._to: Callable[[type[Object], int], str] = lambda kind, number: (
            f"{text_to(context, base, kind, number)}/info"
        )
        self._places: set[Key] = set()

    def objects(self, snapshot: Snapshot) -> Iterator[None]:
        """All maps and programs, and what is in what."""
        for number, bpf_map in snapshot.maps.items():
            kind = names.name_of(names.MAP_TYPE, bpf_map.type)
            details = [f"max_entries {bpf_map.max_entries}"]
            self._add(snapshot, Map, number, bpf_map.name, str(kind), details)
            yield
        how: dict[int, list[str]] = defaultdict(list)
        for direct in snapshot.direct:
            how[direct.program_id].append(direct.how)
        for number, program in snapshot.programs.items():
            kind = names.name_of(names.PROGRAM_TYPE, program.type)
            self._add(snapshot, Program, number, program.name, str(kind), how[number])
            for map_id in program.map_ids:
                self._tie((Kind.PROGRAM, number), (Kind.MAP, map_id), Label.USES)
            yield
        for number, items in snapshot.slots.items():
            for item in items:
                if snapshot.target(number) is Map:
                    self._tie((Kind.MAP, number), (Kind.MAP, item), Label.INNER_MAP)
                else:
                    self._tie((Kind.MAP, number), (Kind.PROGRAM, item), Label.TAIL_CALL)

    def attachments(self, snapshot: Snapshot) -> Iterator[None]:
        """All links, and what they and programs without one are attached to."""
        for direct in snapshot.direct:
            place = Attachment(direct.place, direct.name)
            if direct.place == "map":
                self._tie(
                    (Kind.MAP, int(direct.name)), (Kind.PROGRAM, direct.program_id), Label.ATTACHED
                )
            else:
                self._tie(self._place(place), (Kind.PROGRAM, direct.program_id), Label.ATTACHED)
        for number, programs in snapshot.operations.items():
            for program_id in programs:
                self._tie((Kind.MAP, number), (Kind.PROGRAM, program_id), Label.RUNS)
        yield
        for number in snapshot.links:
            with contextlib.suppress(FileNotFoundError), Link.from_id(number) as link:
                self._link(snapshot, link)
            yield

    def _link(self, snapshot: Snapshot, link: Link) -> None:
        number, program_id = link.info.id, link.info.prog_id
        kind = names.name_of(names.LINK_TYPE, link.info.type)
        place = attachment(link)
        self._add(snapshot, Link, number, "", str(kind), place.how if place else ())
        if program_id:
            self._tie((Kind.LINK, number), (Kind.PROGRAM, program_id), Label.RUNS)
        if place:
            self._tie(self._place(place), (Kind.LINK, number), Label.ATTACHED)
        if map_id := snapshot.links[number].map_id:
            # A struct_ops link runs a map of programs, and an iterator may go through a map; a
            # sockmap has its program by a link.
            if place or not program_id:
                self._tie(
                    (Kind.LINK, number), (Kind.MAP, map_id), Label.USES if place else Label.RUNS
                )
            else:
                self._tie((Kind.MAP, map_id), (Kind.LINK, number), Label.ATTACHED)

    def _place(self, place: Attachment) -> Key:
        """The node of what something is attached to."""
        node = Node(Kind.ATTACHMENT, f"{place.type} {place.name}", place.name, place.type)
        if node.key not in self._places:
            self._places.add(node.key)
            self.graph.nodes.append(node)
        return node.key

    def users_of(self, snapshot: Snapshot, btf: Key) -> None:
        """A Kind.BTF object, and the maps and programs whose types it has."""
        _, number = btf
        assert isinstance(number, int)
        try:
            with BtfObject.from_id(number) as btf_object:
                name = btf_object.name
        except FileNotFoundError:
            return
        self._add(snapshot, BtfObject, number, name, "btf", [])
        for map_id, bpf_map in snapshot.maps.items():
            if bpf_map.btf_id == number:
                self._tie((Kind.MAP, map_id), btf, Label.USES)
        for program_id, program in snapshot.programs.items():
            if program.btf_id == number:
                self._tie((Kind.PROGRAM, program_id), btf, Label.USES)

    def _add(
        self,
        snapshot: Snapshot,
        kind: type[Object],
        number: int,
        name: str,
        what: str,
        details: Sequence[str],
    ) -> None:
        pins = [printable(path) for path in snapshot.pins.get((kind.kind, number), ())]
        href = self._to(kind, number)
        self.graph.nodes.append(Node(_KINDS[kind], number, name, what, details, pins, href))

    def _tie(self, source: Key, target: Key, label: Label) -> None:
        self.graph.edges.append(Edge(source, target, label))
