"""Who has an object open."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.holding import holding
from support.links import loaded, raw_tracepoint, uprobes
from support.maps import make_map, types
from support.programs import load

from fusefs.bpf.btf_object import BtfObject
from fusefs.bpf.holders import Holder, find_holders
from fusefs.bpf.object import Object


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What is closed at the end."""
    with ExitStack() as made:
        yield made


def link(stack: ExitStack) -> Object:
    """A link, and its program only in the kernel."""
    programs = stack.enter_context(loaded())
    with programs.program("on_raw_tracepoint") as program:
        return stack.enter_context(raw_tracepoint(program, "sys_enter", 1))


def btf(stack: ExitStack) -> Object:
    """A BTF object that has another descriptor than that of the other tests."""
    return stack.enter_context(BtfObject.from_id(types().btf.info.id))


KINDS: dict[str, Callable[[ExitStack], Object]] = {
    "map": lambda stack: stack.enter_context(make_map()),
    "program": lambda stack: stack.enter_context(load()),
    "link": link,
    "btf": btf,
}


def held(obj: Object) -> list[Holder]:
    """Who has it open."""
    return find_holders().get((obj.kind, obj.info.id), [])


@pytest.mark.parametrize("kind", KINDS)
def test_until_it_is_closed(stack: ExitStack, kind: str) -> None:
    obj = KINDS[kind](stack)
    assert obj.kind == kind
    assert held(obj) == []  # this process is not among them
    with holding(obj) as first, holding(obj) as second:
        both = sorted([Holder(first.pid, "holder"), Holder(second.pid, "holder")])
        assert held(obj) == both
        first.close()
        assert held(obj) == [Holder(second.pid, "holder")]
    assert held(obj) == []


def test_two_descriptors_of_a_process_are_one_holder(stack: ExitStack) -> None:
    obj = KINDS["map"](stack)
    again = os.dup(obj.fd)
    stack.callback(os.close, again)
    os.set_inheritable(again, True)
    with holding(obj) as process:
        assert held(obj) == [Holder(process.pid, "holder")]


@pytest.mark.parametrize("comm", [b"a b", b"\xff\xfe", b"a\rb", b"a\r\n", b"\xc3\xa4", b'"\\'])
def test_names_of_any_bytes(stack: ExitStack, comm: bytes) -> None:
    obj = KINDS["map"](stack)
    with holding(obj, comm) as process:
        assert held(obj) == [Holder(process.pid, os.fsdecode(comm))]
        process.close()
        # Nor do those matter that hold nothing.
        assert held(obj) == []


def test_a_link_to_a_file_whose_name_is_no_text(stack: ExitStack, tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff\nlink_id:\t1"
    with open(path, "wb") as file:
        file.write(bytes(4096))
    programs = stack.enter_context(loaded())
    with programs.program("on_probes") as program:
        obj = stack.enter_context(uprobes(program, os.fsdecode(path), [64], [1]))
    with holding(obj) as process:
        assert held(obj) == [Holder(process.pid, "holder")]
