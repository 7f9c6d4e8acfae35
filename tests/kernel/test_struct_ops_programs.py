"""The programs that struct_ops maps hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.links import struct_ops_link
from support.maps import make_map
from support.samples import Workshop, workshop

from fusefs.bpf import struct_ops
from fusefs.bpf.map import Map, MapType
from fusefs.bpf.program import Program

FUNCTIONS = {"ssthresh", "cong_avoid", "undo_cwnd"}  # in congestion.bpf.c


@pytest.fixture
def made(bpffs: Path) -> Iterator[Workshop]:
    """What makes a map."""
    with workshop(bpffs) as made:
        yield made


def names_of(bpf_map: Map) -> list[str]:
    """The names of the programs that a map holds."""
    names = []
    for program_id in struct_ops.programs(bpf_map):
        with Program.from_id(program_id) as program:
            assert program.information().name == program.info.name
            names.append(program.info.name.decode())
    return sorted(names)


def test_registered(made: Workshop) -> None:
    assert names_of(made.sample(MapType.STRUCT_OPS)) == sorted(FUNCTIONS)


def test_registered_by_a_link() -> None:
    with struct_ops_link() as (bpf_map, link):
        assert names_of(bpf_map) == sorted(FUNCTIONS)
        link.detach()


def test_other_maps_hold_none() -> None:
    with make_map(MapType.ARRAY) as bpf_map:
        assert struct_ops.programs(bpf_map) == []
