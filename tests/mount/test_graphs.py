"""`graph.dot` and `graph.svg`: pictures of what is attached where, and of what uses what."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from support.cgroups import cgroup
from support.direct import to_cgroup
from support.links import Attach, create, in_namespace, loaded, over_map
from support.maps import make_map, types, u32
from support.mounting import COMMAND, Mount, temporary_directory
from support.network import network
from support.samples import workshop
from support.shell import ENVIRONMENT, run
from support.users import DENIED, nobody
from support.waiting import eventually

from fusefs.bpf.link import Link
from fusefs.bpf.map import Map, MapType
from fusefs.bpf.object import Object
from fusefs.bpf.program import Program
from fusefs.tree.targets import path_by_id

pytestmark = pytest.mark.skipif(shutil.which("dot") is None, reason="needs Graphviz")

Mounter = Callable[..., Mount]
SVG = "{http://www.w3.org/2000/svg}"
HREF = "{http://www.w3.org/1999/xlink}href"
# Who reads is interrupted within so many seconds.
SOON = 0.5
# A read that others hold up takes longer.
GENEROUS = 2.0


def where(obj: Object) -> str:
    """Where an object is below `.by-id/`."""
    return "/".join(path_by_id(type(obj), obj.info.id))


def parsed(text: bytes) -> dict[str, Any]:
    """What `dot` makes of a text in its language."""
    result = run(["dot", "-Tjson"], given=text)
    assert (result.code, result.stderr) == (0, ""), result
    graph: dict[str, Any] = json.loads(result.stdout)
    return graph


def boxes(graph: dict[str, Any]) -> list[str]:
    """Its boxes, in few words each."""
    return sorted(box["name"].partition(": ")[2] for box in graph["objects"])


def ties(graph: dict[str, Any]) -> list[str]:
    """Its arrows."""
    return sorted(edge["tooltip"] for edge in graph.get("edges", ()))


def drawn(text: bytes | str) -> ElementTree.Element:
    """An SVG, which is well-formed from its first byte to its last."""
    text = text.encode() if isinstance(text, str) else text
    assert text.startswith(b"<?xml ")
    root = ElementTree.fromstring(text)
    assert root.tag == f"{SVG}svg"
    return root


def texts(root: ElementTree.Element) -> str:
    """All that is written in a picture."""
    return "\n".join("".join(element.itertext()) for element in root.iter(f"{SVG}text"))


def hrefs(root: ElementTree.Element) -> set[str]:
    """Where a picture leads to."""
    return {element.get(HREF, "") for element in root.iter(f"{SVG}a")}


def children_of(mount: Mount) -> list[str]:
    """The child processes of a mount's first thread, which starts them; zombies too."""
    pid = mount.process.pid
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def descriptors_of(mount: Mount) -> int:
    return len(os.listdir(f"/proc/{mount.process.pid}/fd"))


@dataclass
class Arrangement:
    """Objects that hang together in three parts, and the cgroup that one of them is in."""

    xdp: Link
    counting: Program
    counts: Map
    on_cgroup: Link
    egress: Program
    path: Path
    caller: Program
    table: Map
    called: Program
    outer: Map
    inner: Map


def of_maps(inner: Map) -> Map:
    """A map for maps like `inner`."""
    kind = MapType.ARRAY_OF_MAPS
    return Map.create(kind, key_size=4, value_size=4, max_entries=4, inner=inner, name="outer")


@pytest.fixture(scope="module")
def made() -> Iterator[Arrangement]:
    """Such objects."""
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        net, path = enter(network()), enter(cgroup("graph"))
        swap, some, calls = (
            enter(loaded(name)) for name in ("links_swap", "links", "tail_call")
        )  # fmt: skip
        first, egress = enter(swap.program("first")), enter(some.program("on_egress"))
        xdp = in_namespace(
            net.server, lambda: create(first, socket.if_nametoindex("veth0"), Attach.XDP, flags=2)
        )
        directory = os.open(path, os.O_RDONLY)
        stack.callback(os.close, directory)
        inner = enter(make_map(MapType.ARRAY, max_entries=2, name="inner"))
        outer = enter(of_maps(inner))
        outer.update(u32(1), u32(inner.fd))
        table, called = enter(calls.map("table")), enter(calls.program("first"))
        table.update(u32(2), u32(called.fd))
        yield Arrangement(
            enter(xdp), first, enter(swap.map("counts")),
            enter(create(egress, directory, Attach.CGROUP_INET_EGRESS)), egress, path,
            enter(calls.program("caller")), table, called, outer, inner,
        )  # fmt: skip


def graph_of(mount: Mount, obj: Object) -> dict[str, Any]:
    """The picture of one object, which is by the same name for a program to read."""
    return parsed((mount.path / where(obj) / "graph.dot").read_bytes())


def short(obj: Object) -> str:
    return f"{obj.kind} {obj.info.id}"


# What is in them.


def test_a_link_and_what_it_runs(mounted: Mount, made: Arrangement) -> None:
    xdp, counting, counts = short(made.xdp), short(made.counting), short(made.counts)
    graph = graph_of(mounted, made.xdp)
    assert boxes(graph) == sorted(["attachment", xdp, counting, counts])
    assert ties(graph) == sorted(
        [
            f"attachment - attached to - {xdp}",
            f"{xdp} - runs - {counting}",
            f"{counting} - uses - {counts}",
        ]
    )


def test_a_program_on_a_cgroup(mounted: Mount, made: Arrangement) -> None:
    link, egress = short(made.on_cgroup), short(made.egress)
    graph = graph_of(mounted, made.egress)
    assert boxes(graph) == sorted(["attachment", link, egress])
    assert ties(graph) == sorted(
        [f"attachment - attached to - {link}", f"{link} - runs - {egress}"]
    )
    text = texts(drawn((mounted.path / where(made.egress) / "graph.svg").read_bytes()))
    assert made.path.name[-20:] in text
    assert "cgroup_inet_egress" in text


def test_tail_calls(mounted: Mount, made: Arrangement) -> None:
    caller, table, called = short(made.caller), short(made.table), short(made.called)
    wanted = [f"{caller} - uses - {table}", f"{table} - tail call - {called}"]
    for obj in (made.caller, made.table, made.called):
        graph = graph_of(mounted, obj)
        assert boxes(graph) == sorted([caller, table, called])
        assert ties(graph) == sorted(wanted)


def test_maps_in_maps(mounted: Mount, made: Arrangement) -> None:
    outer, inner = short(made.outer), short(made.inner)
    for obj in (made.outer, made.inner):
        graph = graph_of(mounted, obj)
        assert boxes(graph) == sorted([outer, inner])
        assert ties(graph) == [f"{outer} - inner map - {inner}"]


def test_what_leads_to_a_map_and_nothing_beside_it(mounted: Mount, made: Arrangement) -> None:
    mounted.sh(f"echo here > {where(made.counts)}/pin")
    root = drawn((mounted.path / "here/graph.svg").read_bytes())
    found = {href for href in hrefs(root) if "/programs/" in href}
    mine = json.loads(mounted.sh("jq -c .prog_ids here/info.json").stdout)
    assert len(mine) == 3
    assert found == {f"../.by-id/programs/{number}/info" for number in mine}
    assert f"../.by-id/links/{made.xdp.info.id}/info" in hrefs(root)
    assert f"../.by-id/maps/{made.inner.info.id}/info" not in hrefs(root)
    for href in found:  # each of them leads to something
        assert (mounted.path / "here" / href).exists()
    assert f"{mounted.source}/here"[-25:] in texts(root)


def test_what_is_attached_without_a_link(mounted: Mount) -> None:
    with (
        loaded() as others,
        others.program("on_egress") as program,
        cgroup("direct") as path,
        to_cgroup(program, path, Attach.CGROUP_INET_EGRESS),
    ):
        text = texts(drawn((mounted.path / where(program) / "graph.svg").read_bytes()))
        assert "cgroup_inet_egress" in text
        graph = graph_of(mounted, program)
        assert boxes(graph) == sorted(["attachment", short(program)])
        assert ties(graph) == [f"attachment - attached to - {short(program)}"]


def test_a_map_that_an_iterator_goes_through(mounted: Mount) -> None:
    with (
        loaded("links_iterators") as others,
        others.map("numbers") as numbers,
        others.program("each_element") as program,
        over_map(program, numbers) as link,
    ):
        assert f"{short(link)} - uses - {short(numbers)}" in ties(graph_of(mounted, numbers))


def test_a_map_that_is_registered(mounted: Mount, bpffs: Path) -> None:
    with workshop(bpffs) as others:
        congestion = others.sample(MapType.STRUCT_OPS)
        found = [tie for tie in ties(graph_of(mounted, congestion)) if " - runs - " in tie]
        assert len(found) == 3


def test_a_graph_of_types(mounted: Mount, made: Arrangement) -> None:
    btf = types().btf
    root = drawn((mounted.path / where(btf) / "graph.svg").read_bytes())
    assert f"../../maps/{made.inner.info.id}/info" in {
        href.replace("../../../.by-id", "../..") for href in hrefs(root)
    }
    parsed((mounted.path / where(btf) / "graph.dot").read_bytes())


def test_the_whole(mounted: Mount, made: Arrangement) -> None:
    text = (mounted.path / ".by-id/graph.dot").read_bytes()
    parsed(text)
    root = drawn((mounted.path / ".by-id/graph.svg").read_bytes())
    found = hrefs(root)
    for obj in (made.xdp, made.on_cgroup, made.caller, made.table, made.called, made.outer):
        assert any(href.endswith(f"{where(obj)}/info") for href in found), obj
        assert f"{where(obj)}/info".encode() in text
    for href in found - {"#", ""}:
        assert href.startswith("../.by-id/")


def test_what_changes(mounted: Mount) -> None:
    with make_map(name="one") as one:
        graph = graph_of(mounted, one)
        assert boxes(graph) == [short(one)]
        with of_maps(one) as outer:
            assert boxes(graph_of(mounted, outer)) == [short(outer)]
            outer.update(u32(1), u32(one.fd))
            eventually("they are tied", lambda: len(boxes(graph_of(mounted, one))) == 2, 1)
        eventually("it is alone", lambda: boxes(graph_of(mounted, one)) == [short(one)], 1)


HOSTILE = [
    '"><script>alert(1)</script>',
    "\\N\\G",
    "]]>",
    "a\nb",
    "&lt;&#0;",
    "\udcff\udcfe",
    "<",
    "%s{}|",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names(mounted: Mount, name: str) -> None:
    with make_map() as bpf_map:
        mounted.pin(name.replace("/", "_"), bpf_map)
        graph = mounted.path / where(bpf_map)
        assert boxes(parsed((graph / "graph.dot").read_bytes())) == [short(bpf_map)]
        root = drawn((graph / "graph.svg").read_bytes())
        assert not list(root.iter(f"{SVG}script"))
        if name == "]]>":
            assert f"{mounted.source}/]]>"[-20:] in texts(root)


# Who may read them, and how.


def test_a_picture_of_one_object_is_not_listed(mounted: Mount) -> None:
    # Who looks at everything would have a process started for each.
    with make_map() as bpf_map:
        mounted.pin("pin", bpf_map)
        assert "graph.dot" not in os.listdir(mounted.path / "pin")
        assert "graph.svg" not in os.listdir(mounted.path / "pin")
        assert mounted.sh("cat pin/graph.svg").code == 0
        assert mounted.sh("grep -r '<svg' .").code == 1


def test_they_are_roots(bpffs: Path, mounter: Mounter) -> None:
    mount = mounter("-o", "allow_other")
    with make_map() as bpf_map:
        mount.pin("pin", bpf_map)
        mount.sh("chmod 755 . && chmod 644 pin && chown 65534 pin")
        for name in ("graph.dot", "graph.svg"):
            status = (mount.path / "pin" / name).stat()
            assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o400, 0)
            assert nobody(mount, f"cat pin/{name}").stderr.endswith(DENIED)
            assert mount.sh(f"cat pin/{name}").code == 0


def test_many_readers_at_once(mounted: Mount, made: Arrangement) -> None:
    path = where(made.xdp)
    mounted.sh(f"cat {path}/graph.svg")
    before = descriptors_of(mounted)
    command = ["bash", "-c", f"cat {path}/graph.svg; stat {path} >&2"]
    readers = [
        subprocess.Popen(
            command, cwd=mounted.path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        for _ in range(12)
    ]
    said = [reader.communicate(timeout=60)[0] for reader in readers]
    full = [text for text in said if b"attached to" in text]
    assert full
    for text in said:
        root = drawn(text)
        assert text in full or "are being drawn already" in texts(root)
    eventually("no child is left", lambda: not children_of(mounted))
    eventually("no descriptor is left", lambda: descriptors_of(mounted) <= before)


def test_again_from_the_start(mounted: Mount, made: Arrangement) -> None:
    with (mounted.path / where(made.xdp) / "graph.svg").open("rb") as file:
        first = file.read()
        file.seek(0)
        assert file.read() == first
    drawn(first)
    with (mounted.path / where(made.xdp) / "graph.svg").open("rb") as file:
        pieces = iter(lambda: file.read(7), b"")
        assert b"".join(pieces) == first


# Graphviz that is slow, or not there.


@contextlib.contextmanager
def tools(script: str | None) -> Iterator[Path]:
    """A directory for PATH, with a script as `dot`, or without one."""
    with temporary_directory() as path:
        for name in ("setpriv", "nice", "prlimit"):
            (path / name).symlink_to(shutil.which(name) or name)
        if script is not None:
            (path / "dot").write_text(f"#!/bin/sh\n{script}\n")
            (path / "dot").chmod(0o755)
        yield path


def with_path(path: Path) -> list[str]:
    """The command, with another PATH."""
    return ["/usr/bin/env", f"PATH={path}", *COMMAND]


@pytest.fixture
def slow(mounter: Mounter) -> Iterator[Mount]:
    """A mount whose Graphviz takes its time."""
    with tools(f'sleep 3; exec {shutil.which("dot")} "$@"') as path:
        yield mounter(command=with_path(path))


def test_without_graphviz(mounter: Mounter) -> None:
    with tools(None) as path, make_map() as bpf_map:
        mount = mounter(command=with_path(path))
        mount.pin("pin", bpf_map)
        for name in ("pin/graph.svg", ".by-id/graph.svg"):
            root = drawn((mount.path / name).read_bytes())
            assert texts(root) == "dot is not installed: graphs need Graphviz"
        assert boxes(parsed((mount.path / "pin/graph.dot").read_bytes())) == [short(bpf_map)]


@pytest.mark.parametrize(
    ("script", "said"), [("echo no >&2; exit 3", "no"), ("kill -9 $$", "Killed")]
)
def test_graphviz_that_fails(mounter: Mounter, script: str, said: str) -> None:
    with tools(script) as path, make_map() as bpf_map:
        mount = mounter(command=with_path(path))
        mount.pin("pin", bpf_map)
        root = drawn((mount.path / "pin/graph.svg").read_bytes())
        assert texts(root) == f"dot could not draw the graph: {said}"


READERS = {
    "cat": "cat pin/graph.svg",
    "awk": "awk 1 pin/graph.svg",
    "python": f"{sys.executable} -c \"print(open('pin/graph.svg').read())\"",
    "dd": "dd bs=10 status=none if=pin/graph.svg",
}


def test_a_slow_one_gives_all_readers_a_picture(slow: Mount) -> None:
    with make_map() as bpf_map:
        slow.pin("pin", bpf_map)
        commands = [["bash", "-c", command] for command in READERS.values()]
        readers = [
            subprocess.Popen(command, cwd=slow.path, env=ENVIRONMENT, stdout=subprocess.PIPE)
            for command in commands
        ]
        # Others are answered meanwhile.
        while any(reader.poll() is None for reader in readers[:1]):
            began = time.monotonic()
            assert slow.sh("cat pin/info; ls -l pin").code == 0
            assert time.monotonic() - began < GENEROUS
        for name, reader in zip(READERS, readers, strict=True):
            text = reader.communicate(timeout=20)[0]
            assert short(bpf_map) in texts(drawn(text)), name
        eventually("no child is left", lambda: not children_of(slow))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_reader_that_is_interrupted(slow: Mount, number: signal.Signals) -> None:
    with make_map() as bpf_map:
        slow.pin("pin", bpf_map)
        (slow.path / "pin/info").read_text()
        before = descriptors_of(slow)
        with subprocess.Popen(
            ["cat", slow.path / "pin/graph.svg"], stdout=subprocess.DEVNULL
        ) as reader:
            try:
                eventually("it is being drawn", lambda: children_of(slow))
                began = time.monotonic()
                reader.send_signal(number)
                assert reader.wait(10) == -number
                assert time.monotonic() - began < SOON
            finally:
                reader.kill()
        eventually("no child is left", lambda: not children_of(slow), 1)
        eventually("no descriptor is left", lambda: descriptors_of(slow) <= before, 1)


def test_unmounted_while_it_is_drawn(mounter: Mounter) -> None:
    with tools("exec sleep 60") as path, make_map() as bpf_map:
        mount = mounter(command=with_path(path))
        mount.pin("pin", bpf_map)
        with subprocess.Popen(
            ["cat", mount.path / "pin/graph.svg"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as reader:
            (child,) = eventually("it is being drawn", lambda: children_of(mount))
            comm = Path(f"/proc/{child}/comm")
            eventually("dot has been started", lambda: comm.read_text() == "sleep\n")
            mount.process.send_signal(signal.SIGTERM)
            assert mount.process.wait(10) == 0
            reader.wait(10)
        eventually("no child is left", lambda: not Path(f"/proc/{child}").exists())
