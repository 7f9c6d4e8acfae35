"""To look around changes nothing, of one object of every type, as bpf(2) has it."""

from __future__ import annotations

import contextlib
import json
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.desktop import program as on_screen
from support.desktop import screen
from support.harmless import Told, Watched
from support.links import (
    Attach,
    create,
    in_namespace,
    iterator,
    loaded,
    on_cgroup,
    raw_tracepoint,
    struct_ops_link,
)
from support.maps import make_map, u32
from support.mounting import COMMAND, Mount, mounted, mounted_bpffs
from support.network import network
from support.programs import using
from support.samples import workshop
from support.soaking import Figure, passing
from support.tracing import Tracer
from support.waiting import eventually

from fusefs.bpf.map import MapType
from fusefs.bpf.object import Object
from fusefs.bpf.program import enable_statistics

# What walks over everything that is listed, as people and their machines do at night. Whoever asks
# for graph.svg has it drawn, which is no harm, but takes long.
WALKS = [
    "grep -r nothing-like-this . ; true",
    "find . -ls",
    "find . -type f -size +1M -newer /etc/passwd",
    "tar -c --exclude=graph.svg . | cat",
    "rsync -a --exclude=graph.svg . {scratch}/copy-{turn}",
    "cp -a --no-preserve=ownership . {scratch}/cp-{turn}",
    "ls -laR --color=always .",
    "du -a .",
    "file -r $(find . -type f)",
    "find . -type f -exec head -c 100 '{{}}' + ",
    "find . -type f -print0 | xargs -0 tail -n 1",
    "find . -print0 | xargs -0 getfattr -d; true",
    "find . -exec stat -L '{{}}' + ; true",
    "head -n 3 .by-id/maps/*/info; cat */entries/*/info; cat */prog/info; cat */maps/*/info; true",
    "for d in */; do ls $d/entries/1 $d/entries/zzz; cat $d/entries/0x1; done; true",
]


def kinds_of_links(stack: ExitStack) -> Iterator[tuple[str, Object]]:
    """A link of each type that can be had on every kernel."""
    programs = stack.enter_context(loaded())
    net = stack.enter_context(network())
    yield "cgroup", stack.enter_context(on_cgroup(programs))
    yield "struct_ops", stack.enter_context(struct_ops_link())[1]
    program = stack.enter_context(programs.program("on_raw_tracepoint"))
    yield "raw_tracepoint", stack.enter_context(raw_tracepoint(program, "sys_enter", 1))
    counting = stack.enter_context(loaded("links_iterators"))
    program = stack.enter_context(counting.program("each_task"))
    yield "iter", stack.enter_context(iterator(program))
    for name, function, attach, to_interface, more in (
        ("xdp", "on_packet", Attach.XDP, 1, b""),
        ("tcx", "on_queue", Attach.TCX_INGRESS, 1, b""),
        ("netfilter", "on_hook", Attach.NETFILTER, 0, struct.pack("=IIiI", 2, 4, -128, 0)),
    ):
        program = stack.enter_context(programs.program(function))
        link = in_namespace(
            net.server,
            lambda program=program, to=to_interface, attach=attach, more=more: create(  # type: ignore[misc]
                program, to, attach, more
            ),
        )
        yield name, stack.enter_context(link)


@pytest.fixture(scope="module")
def everything() -> Iterator[tuple[Mount, Watched]]:
    """A mount with one object of every type, all programs and maps that belong to them, and what
    the kernel tells of them."""
    with ExitStack() as stack:
        bpffs = stack.enter_context(mounted_bpffs())
        mount = stack.enter_context(mounted(bpffs))
        shop = stack.enter_context(workshop(bpffs))
        objects: dict[str, Object] = {}
        for kind in MapType:
            objects[kind.name] = mount.pin(kind.name.lower(), shop.sample(kind))
        for name, link in kinds_of_links(stack):
            objects[f"link {name}"] = mount.pin(f"link_{name}", link)
        for name in os.listdir(shop.loaded):
            objects[f"program {name}"] = shop.program(name)
        stack.callback(os.close, enable_statistics())  # so that a run is counted
        keys = {
            kind: u32(shop.live_thing(kind))
            for kind in (
                MapType.SK_STORAGE, MapType.INODE_STORAGE, MapType.TASK_STORAGE,
                MapType.CGRP_STORAGE,
            )
        }  # fmt: skip
        keys |= dict.fromkeys((MapType.QUEUE, MapType.STACK), b"")
        yield mount, Watched(objects, keys, stack)


def differences(before: dict[str, Told], after: dict[str, Told]) -> list[object]:
    """What the kernel tells otherwise than before."""
    return [
        (name, what, told, after[name][what])
        for name, all_told in before.items()
        for what, told in all_told.items()
        if after[name][what] != told
    ]


def unchanged(watched: Watched, before: dict[str, Told], by: str) -> None:
    """All is as before; but what the mount has open it may hold for a moment, as others do who look
    through the kernel's objects."""
    found: list[object] = []

    def same() -> bool:
        found[:] = differences(before, watched.state())
        return not found

    with contextlib.suppress(AssertionError):
        eventually("all is as before", same, 3)
    assert not found, f"{by}: {found}"


@pytest.mark.soak(short=1)
def test_walks(
    everything: tuple[Mount, Watched], tmp_path: Path, span: float, figure: Figure
) -> None:
    mount, watched = everything
    before = watched.state()
    turns = 0
    for turn in passing(span):
        for walk in WALKS:
            result = mount.sh(
                walk.format(scratch=tmp_path, turn=turn) + " > /dev/null", seconds=100
            )
            unchanged(watched, before, walk)
            assert result.code == 0, (walk, result)
        mount.sh(f"rm -rf {tmp_path}/*")
        turns += 1
    figure("objects that looking did not change", len(before))
    figure("walks over all of them", turns * len(WALKS))


@pytest.mark.parametrize("manager", ["thunar", "pcmanfm"])
def test_windows(everything: tuple[Mount, Watched], manager: str, tmp_path: Path) -> None:
    """A window for each object: file managers look into files to tell their types, and have small
    pictures made of some."""
    mount, watched = everything
    before = watched.state()
    places = sorted(path.parent for path in mount.path.glob("*/info.json"))
    tracer = Tracer(tmp_path / "calls")
    expected = {str(place.relative_to(mount.path) / "info.json") for place in places}
    with (
        screen(tmp_path) as desktop,
        on_screen(desktop, manager, *places, tracer=tracer.command),
    ):
        eventually("all is seen", lambda: expected <= dict(tracer.opened(mount.path)).keys(), 100)
    unchanged(watched, before, manager)


def test_a_table_of_programs_that_nobody_holds_is_opened_once(
    mounter: Callable[..., Mount], tmp_path: Path
) -> None:
    """Each time that it is closed the kernel empties it anew; when that is too soon after another
    time, it stays for ever."""
    calls = tmp_path / "calls"
    mount = mounter(command=["strace", "-f", "-qq", "-e", "trace=bpf", "-o", str(calls), *COMMAND])
    with make_map(MapType.PROG_ARRAY, key=4, value=4) as table, using(table) as program:
        number = table.info.id
        mount.pin("program", program)

    def info_in_a_new_survey() -> None:
        with make_map(name="new") as new:  # only a new survey knows of it
            told = json.loads((mount.path / f".by-id/maps/{new.info.id}/info.json").read_text())
            assert told["holders"]

    for _ in range(5):
        info_in_a_new_survey()
    opening = f"bpf(BPF_MAP_GET_FD_BY_ID, {{map_id={number}, "
    assert calls.read_text().count(opening) == 1
