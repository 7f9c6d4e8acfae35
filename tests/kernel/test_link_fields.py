"""The tables of what links tell: they are as the kernel's own types have it."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

import pytest

from fusefs.bpf import link_names, names
from fusefs.bpf.btf import Btf, Composite, Kind, kernel_btf
from fusefs.bpf.link import LinkInfo
from fusefs.bpf.link_fields import PARTS, VARIANTS, Part

TYPES = {
    1: "raw_tracepoint", 2: "tracing", 3: "cgroup", 4: "iter", 5: "netns", 6: "xdp",
    7: "perf_event", 8: "kprobe_multi", 9: "struct_ops", 10: "netfilter", 11: "tcx",
    12: "uprobe_multi", 13: "netkit", 14: "sockmap",
}  # fmt: skip
EVENTS = {1: "uprobe", 2: "uprobe", 3: "kprobe", 4: "kprobe", 5: "tracepoint", 6: "event"}
RENAMED = {"event_type": "type", "perf_type": "type", "perf_config": "config"}


def leaves(btf: Btf, type_id: int, start: int) -> Iterator[tuple[str, tuple[int, int]]]:
    """The plain members of a structure and of all in it: name, offset and size in bytes."""
    found = btf.type(btf.strip(type_id))
    if not isinstance(found, Composite):
        return
    for member in found.members:
        at = start + member.bit_offset // 8
        inner = btf.type(btf.strip(member.type_id))
        if isinstance(inner, Composite):
            yield from leaves(btf, member.type_id, at)
        else:
            yield member.name, (at, getattr(inner, "size", 0))


def member_of(btf: Btf, type_id: int, name: str, start: int = 0) -> tuple[int, int]:
    """The type and offset of a member, also of what has no name in it."""
    found = btf.type(btf.strip(type_id))
    assert isinstance(found, Composite)
    for member in found.members:
        at = start + member.bit_offset // 8
        if member.name == name:
            return member.type_id, at
        if not member.name:
            try:
                return member_of(btf, member.type_id, name, at)
            except KeyError:
                continue
    raise KeyError(name)


def places(part: Part) -> Iterator[tuple[str, tuple[int, int]]]:
    """Where a row has its fields, in the whole structure."""
    at, fields = LinkInfo.by_type.offset, iter(part.names)
    for count, code in re.findall(r"(\d*)([xQIi])", part.form):
        size = struct.calcsize(f"={code}")
        for _ in range(int(count or 1)):
            if code != "x":
                yield next(fields), (at, size)
            at += size


ROWS = [(part, kind, 0) for kind, part in PARTS.items()] + [
    (part, kind, value if isinstance(value, int) else 0) for (kind, value), part in VARIANTS.items()
]


@pytest.mark.parametrize(("part", "kind", "event"), ROWS, ids=lambda row: str(row)[:30])
def test_each_row_is_where_the_kernel_has_it(part: Part, kind: int, event: int) -> None:
    btf = kernel_btf()
    assert btf
    whole = btf.find("bpf_link_info", Kind.STRUCT)
    assert whole
    try:
        type_id, start = member_of(btf, whole, TYPES[kind])
    except KeyError:
        pytest.skip("this kernel is older")
    if event:
        type_id, start = member_of(btf, type_id, EVENTS[event], start)
    known = dict(reversed([*leaves(btf, type_id, start)]))  # what comes first is its own
    for name, place in places(part):
        assert known[RENAMED.get(name, name)] == place, name


ENUMERATIONS = {
    name: each for name, each in vars(link_names).items() if isinstance(each, names.Enumeration)
}


@pytest.mark.parametrize("enumeration", ENUMERATIONS.values(), ids=ENUMERATIONS)
def test_the_built_in_names_are_the_kernels(
    monkeypatch: pytest.MonkeyPatch, enumeration: names.Enumeration
) -> None:
    number = 1 if enumeration.bits else 0
    kernels = names.name_of(enumeration, number)
    names._names.cache_clear()
    with monkeypatch.context() as patched:
        patched.setattr(names, "kernel_btf", lambda: None)
        assert names.name_of(enumeration, number) == kernels
        built_in = dict(names._names(enumeration))
    names._names.cache_clear()
    assert len(built_in) == len(enumeration.builtin.split())
    assert {each: names.name_of(enumeration, each) for each in built_in} == built_in
