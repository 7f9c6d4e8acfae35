"""The picture of BPF state: what is gathered, that nothing is lost, and that no name does harm."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from xml.etree import ElementTree

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.graph_samples import (
    Machine,
    counter,
    hard_to_order,
    large_host,
    latency,
    services,
    small_server,
    tracing,
)

from fusefs.text.graph import Edge, Graph, Key, Kind, Label, Node, dot
from fusefs.text.graph_escape import cut, html, link, visible
from fusefs.text.graph_gather import SMALL, Box, Picture, gather

drawn = pytest.mark.skipif(shutil.which("dot") is None, reason="needs Graphviz")

SVG = "{http://www.w3.org/2000/svg}"
XLINK = "{http://www.w3.org/1999/xlink}"


def text_of(graph: Graph) -> str:
    return "".join(dot(graph))


def draw(graph: Graph) -> ElementTree.Element:
    """The SVG that Graphviz makes of a graph. It must have nothing to complain of."""
    done = subprocess.run(
        ["dot", "-Tsvg"], input=text_of(graph).encode(), capture_output=True, check=True
    )
    assert done.stderr == b""
    return ElementTree.fromstring(done.stdout)


def texts(svg: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in svg.iter(f"{SVG}text")]


def links(svg: ElementTree.Element) -> list[tuple[str | None, str | None]]:
    """The target and the tooltip of each."""
    found = svg.iter(f"{SVG}a")
    return [(a.get(f"{XLINK}href"), a.get(f"{XLINK}title")) for a in found]


def box_of(picture: Picture, key: Key) -> Box:
    (box,) = (b for b in picture.boxes if any(node.key == key for node in b.nodes()))
    return box


def tables(picture: Picture) -> list[Box]:
    return [box for box in picture.boxes if not box.single]


def named(graph: Graph, name: str) -> list[Node]:
    return [node for node in graph.nodes if node.name == name]


# What is gathered.


def test_a_small_graph_is_drawn_as_it_is() -> None:
    picture = gather(counter())
    assert len(picture.boxes) == 5
    assert tables(picture) == []
    assert [(a.first.kind, b.first.kind, what) for a, b, what in picture.lines] == [
        (Kind.ATTACHMENT, Kind.LINK, Label.ATTACHED),
        (Kind.LINK, Kind.PROGRAM, Label.RUNS),
        (Kind.PROGRAM, Kind.MAP, Label.USES),
        (Kind.PROGRAM, Kind.MAP, Label.USES),
    ]


def test_nothing_is_drawn_of_an_edge_that_leads_nowhere() -> None:
    graph = counter()
    graph.edges += [
        Edge((Kind.PROGRAM, 3), (Kind.MAP, 999)),
        Edge((Kind.LINK, 999), (Kind.PROGRAM, 3), Label.RUNS),
    ]
    assert text_of(graph) == text_of(counter())


def test_an_empty_graph() -> None:
    assert text_of(Graph(title="nothing")).endswith("}\n")


def test_programs_of_units_are_in_the_row_of_their_unit() -> None:
    machine = Machine("units")
    services(machine, 30)
    picture = gather(machine.graph)
    assert len(tables(picture)) == len(picture.boxes) == 2  # with sd_devices, and without
    assert picture.lines == []
    attached = {(edge.source, edge.target) for edge in machine.graph.edges}
    seen = []
    for table in picture.boxes:
        for (unit,), *programs in table.rows:
            seen += [(unit.key, program.key) for (program,) in programs]
    assert sorted(seen) == sorted(attached)
    names = [row[0][0].name for row in picture.boxes[0].rows]
    assert names == sorted(names, key=lambda name: int(re.sub("[^0-9]", "", name)))


def test_attachments_and_links_are_in_the_row_of_their_program() -> None:
    machine = Machine("tools")
    tracing(machine, 8)
    (table,) = gather(machine.graph).boxes
    assert [cell[0].kind for cell in table.rows[0]] == [
        Kind.ATTACHMENT,
        Kind.LINK,
        Kind.PROGRAM,
        Kind.MAP,
    ]
    ties = {(edge.source, edge.target) for edge in machine.graph.edges}
    for (function,), (made,), (program,), (ring,) in table.rows:
        pairs = [(function, made), (made, program), (program, ring)]
        assert all((a.key, b.key) in ties for a, b in pairs)


def test_rows_are_parted_by_what_they_are_tied_to() -> None:
    """Programs that look alike at two places: a table for each place."""
    machine = Machine("two places")
    for place in ("eth0", "eth1"):
        for _ in range(6):
            program = machine.program("sched_cls", "filter")
            machine.attach(program, "tcx", machine.place("interface", place))
    picture = gather(machine.graph)
    assert [len(table.rows) for table in tables(picture)] == [6, 6]
    assert len(picture.lines) == 2
    for interface, table, what in picture.lines:
        assert what == Label.ATTACHED
        assert {(interface.first.key, row[0][0].key) for row in table.rows} <= {
            (edge.source, edge.target) for edge in machine.graph.edges
        }


def test_global_data_is_told_in_the_box_of_its_only_program() -> None:
    machine = Machine("tool")
    tracing(machine, 1)
    latency(machine)
    graph = machine.graph
    assert len(graph.nodes) > SMALL - 1
    graph.nodes.append(Node(Kind.MAP, 1000, "other", "hash"))
    picture = gather(graph)
    (program,) = (node for node in graph.nodes if node.type == "kprobe")
    assert [n.name for n in picture.data[program.key]] == ["tool0.rodata", "tool0.bss"]
    assert sum(map(len, picture.data.values())) == 2  # what three programs share is not
    assert "tool0.rodata" in text_of(graph)


def test_maps_of_the_same_users_are_one_table() -> None:
    graph = small_server()
    picture = gather(graph)
    (start,) = named(graph, "start")
    table = box_of(picture, start.key)
    assert [row[0][0].name for row in table.rows] == [
        "biolaten.bss", "biolaten.rodata", "histograms", "start",
    ]  # fmt: skip
    assert sum(1 for _, target, _ in picture.lines if target is table) == 3


def test_a_map_that_all_use_has_no_lines() -> None:
    picture = gather(graph := hard_to_order())
    (metrics,) = named(graph, "metrics")
    hub = box_of(picture, metrics.key)
    assert hub.users == 60
    assert all(target is not hub for _, target, _ in picture.lines)
    programs = [box for box in picture.boxes if box.first.kind == Kind.PROGRAM]
    assert all(metrics in box.notes for box in programs)
    assert text_of(graph).count("metrics") >= 61


def test_the_focus_stands_alone() -> None:
    machine = Machine("units")
    services(machine, 30)
    focus = machine.graph.focus = named(machine.graph, "sd_devices")[7].key
    assert box_of(gather(machine.graph), focus).single
    assert text_of(machine.graph).count("penwidth=3") == 1


def test_tail_calls_look_different() -> None:
    graph = small_server()
    calls = sum(edge.label == Label.TAIL_CALL for edge in graph.edges)
    assert calls > 0
    lines = [line for line in dot(graph) if " -> " in line]
    assert sum("dashed" in line for line in lines) == calls


# Laws.

KIND_TIES: list[tuple[Kind, Kind, Label]] = [
    (Kind.ATTACHMENT, Kind.LINK, Label.ATTACHED),
    (Kind.ATTACHMENT, Kind.PROGRAM, Label.ATTACHED),
    (Kind.LINK, Kind.PROGRAM, Label.RUNS),
    (Kind.PROGRAM, Kind.MAP, Label.USES),
    (Kind.MAP, Kind.PROGRAM, Label.TAIL_CALL),
]


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Copies of a few small graphs, tied to one another here and there."""
    graph = Graph()
    for _ in range(draw(st.integers(1, 4))):
        kinds: list[Kind] = draw(
            st.lists(
                st.sampled_from([Kind.ATTACHMENT, Kind.LINK, Kind.PROGRAM, Kind.MAP]),
                min_size=1,
                max_size=5,
            )
        )
        name = draw(st.sampled_from(["a", "b1", "b2", "x.bss"]))
        ties = draw(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=6))
        for _ in range(draw(st.integers(1, 9))):
            first = len(graph.nodes)
            graph.nodes += [Node(kind, first + n, name, "t") for n, kind in enumerate(kinds)]
            for source, target in ties:
                tie(graph, first + source, first + target)
    numbers = st.integers(0, len(graph.nodes) - 1)
    for source, target in draw(st.lists(st.tuples(numbers, numbers), max_size=12)):
        tie(graph, source, target)
    return graph


def tie(graph: Graph, source: int, target: int) -> None:
    """Add an edge, if there can be one between nodes of these kinds."""
    if max(source, target) < len(graph.nodes):
        a, b = graph.nodes[source], graph.nodes[target]
        for one, other, label in KIND_TIES:
            if (a.kind, b.kind) == (one, other):
                graph.edges.append(Edge(a.key, b.key, label))


@given(graphs())
def test_every_node_is_in_the_picture_once(graph: Graph) -> None:
    picture = gather(graph)
    seen = [node for box in picture.boxes for node in box.nodes()]
    seen += [node for nodes in picture.data.values() for node in nodes]
    assert Counter(seen) == Counter(graph.nodes)
    for box in picture.boxes:
        assert all(len(row) == len(box.rows[0]) for row in box.rows)
        assert box.single or len(box.rows) > 1


@given(graphs())
def test_every_edge_is_told_and_every_line_is_true_of_all_rows(graph: Graph) -> None:
    picture = gather(graph)
    number = {n.key: i for i, box in enumerate(picture.boxes) for n in box.nodes()}
    place = {id(box): i for i, box in enumerate(picture.boxes)}
    lines = {(place[id(a)], place[id(b)], what) for a, b, what in picture.lines}
    for edge in graph.edges:
        if edge.target in number:
            source = picture.boxes[number[edge.source]]
            told = (number[edge.source], number[edge.target], edge.label) in lines
            noted = edge.target in {node.key for node in source.notes}
            assert told or noted or source is picture.boxes[number[edge.target]]
        else:
            assert edge.target in {node.key for node in picture.data[edge.source]}
    ties = {(edge.source, number.get(edge.target), edge.label) for edge in graph.edges}
    back = {(number[edge.source], edge.target, edge.label) for edge in graph.edges}
    for a, b, what in lines:
        for row in picture.boxes[a].rows:
            assert any((node.key, b, what) in ties for cell in row for node in cell)
        for row in picture.boxes[b].rows:
            assert any((a, node.key, what) in back for cell in row for node in cell)


@given(graphs(), st.randoms(use_true_random=False))
def test_the_order_of_what_is_given_does_not_matter(graph: Graph, chance: random.Random) -> None:
    shuffled = Graph([*graph.nodes], [*graph.edges])
    chance.shuffle(shuffled.nodes)
    chance.shuffle(shuffled.edges)
    assert text_of(shuffled) == text_of(graph)


def test_the_text_is_the_same_in_every_process() -> None:
    script = (
        "import sys; from support.graph_samples import large_host; from fusefs.text.graph import"
        " dot; sys.stdout.writelines(dot(large_host()))"
    )
    given = [
        subprocess.run(
            [sys.executable, "-c", script],
            env={
                "PYTHONHASHSEED": seed,
                "PYTHONPATH": os.pathsep.join(sys.path),
                "LC_ALL": "C.UTF-8",
            },
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert given[0] == given[1]
    assert given[0].decode() == text_of(large_host())


# Pictures that Graphviz makes.


@drawn
@pytest.mark.parametrize("graph", [counter(), small_server(), large_host()], ids=lambda g: g.title)
def test_pictures_are_quick_and_fit_a_screen(graph: Graph) -> None:
    started = time.monotonic()
    svg = draw(graph)
    assert time.monotonic() - started < 3
    width, height = (
        float((svg.get(side) or "").removesuffix("pt")) for side in ("width", "height")
    )
    assert 0.7 < width / height < 3
    hrefs = {href for href, _tip in links(svg)}
    picture = gather(graph)
    shown = {node.href for box in picture.boxes for node in box.nodes() if node.href}
    assert shown <= hrefs


@drawn
def test_a_long_name_is_cut_and_whole_in_the_tooltip() -> None:
    name, path = "n" * 100, "/sys/fs/cgroup/" + "p" * 100
    graph = Graph(
        [Node(Kind.PROGRAM, 7, name, "xdp", ["one detail"], ["/sys/fs/bpf/pin"], "x/7/info")]
    )
    graph.nodes.append(Node(Kind.ATTACHMENT, 1, path, "cgroup", href="y"))
    svg = draw(graph)
    assert cut(name) in texts(svg)
    assert cut(path) in texts(svg)
    assert cut(path).endswith("ppp")
    tips = dict(links(svg))
    assert tips["x/7/info"] == f"{name} · xdp program 7 · one detail · /sys/fs/bpf/pin"
    assert tips["y"] == f"{path} · cgroup"


@drawn
def test_what_has_no_link_has_a_tooltip_all_the_same() -> None:
    svg = draw(Graph([Node(Kind.MAP, 1, "n" * 100, "hash")]))
    assert ("#", f"{'n' * 100} · hash map 1") in links(svg)


# Names that anybody may have made.

PIECES = ["\\N", "\\G", "\\\\", "\\n", '"', "<B>", "</TABLE>", "&lt;", "&#60;", "&", "]]>", "<!--"]
PIECES += [
    "<script>",
    "\x00",
    "\x1b",
    "\n",
    "\u202e",
    "\udcff",
    "\ud800",
    "\ufffe",
    "é",
    "𝄞",
    "%",
    "{|}",
]
hostile = st.lists(st.sampled_from(PIECES) | st.text(st.characters(), max_size=3), max_size=3).map(
    "".join
)


@drawn
@settings(max_examples=40, deadline=None)
@given(st.lists(hostile, min_size=8, max_size=8), st.sampled_from([1, 5]))
@example([""] * 7 + ["]"], 1)
def test_hostile_texts_are_shown_as_they_are(given: list[str], copies: int) -> None:
    name, kind, detail, pin, href, title, place, where = given
    graph = Graph(title=title)
    for number in range(4 * copies):  # 20 make a table of them
        target: Key = (Kind.PROGRAM, number)
        graph.nodes.append(
            Node(Kind.PROGRAM, number, name, kind, [detail], [pin], f"x{number}/{href}")
        )
        graph.nodes.append(
            Node(Kind.ATTACHMENT, f"{place}{number}", place, where, href=f"a{number}")
        )
        graph.edges.append(Edge((Kind.ATTACHMENT, f"{place}{number}"), target, Label.ATTACHED))
    svg = draw(graph)
    assert sum(map(harms, svg.iter())) == 0
    tips = {href: shown(tip or "") for href, tip in links(svg)}
    for number in range(4 * copies):
        whole = f"{kind} program {number}"
        parts = [visible(part) for part in (name, whole, detail, pin) if part]
        assert tips[link(f"x{number}/{href}")] == shown(" · ".join(parts))
        if place or where:
            tip = " · ".join(visible(part) for part in (place, where) if part)
            assert tips[f"a{number}"] == shown(tip)
    flat = shown("\n".join(texts(svg)))
    assert shown(cut(title, 80)).strip(" ") in flat
    for text in (name, place):  # the head of a table has less room
        assert any(shown(cut(text, room)).strip(" ") in flat for room in (30, 20))


def shown(text: str) -> str:
    """`text` as XML keeps it in attributes, and Graphviz in lines: white space is a space."""
    return re.sub(r"[ \xa0]+", " ", text)


def harms(element: ElementTree.Element) -> bool:
    """Whether an element of an SVG is, or could lead to, anything but a drawing."""
    known = {f"{SVG}{tag}" for tag in "svg g title polygon polyline path ellipse text a".split()}
    href = element.get(f"{XLINK}href") or ""
    return (
        element.tag not in known
        or any(name.lower().startswith("on") for name in element.attrib)
        or ":" in href
        or href.startswith("//")
    )


def test_the_judge_of_harm_judges() -> None:
    def judged(text: str) -> bool:
        space = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
        return harms(ElementTree.fromstring(text.replace(" ", f" {space} ", 1)))

    assert judged("<script />")
    assert judged('<g onload="x" />')
    assert judged('<a xlink:href="javascript:x" />')
    assert judged('<a xlink:href="//host" />')
    assert not judged('<a xlink:href="maps/52/info" />')


@pytest.mark.parametrize(
    ("href", "made"),
    [
        ("maps/52/info", "maps/52/info"),
        ("../../a b", "../../a%20b"),
        ("javascript:alert(1)", "javascript%3Aalert%281%29"),
        ("//host/x", "/host/x"),
        ("", "#"),
        ('"><script>', "%22%3E%3Cscript%3E"),
        ("\\N\udcff\ud800", "%5CN%FF%3F"),
    ],
)
def test_links(href: str, made: str) -> None:
    assert link(href) == made


def test_what_cannot_be_seen_is_made_visible() -> None:
    assert visible("a\n\u202e\udcff\ud800\ufffe") == r"a\u000a\u202e\xff\ud800\ufffe"
    assert html('<&">') == "&lt;&amp;&quot;&gt;"
