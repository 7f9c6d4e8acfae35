"""Programs: what the kernel tells of them, and running them."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.links import Loaded, loaded
from support.maps import make_map, pin
from support.programs import NOTHING, XDP, load, using
from support.running import run
from support.shell import checked

from fusefs.bpf.btf_object import BtfObject
from fusefs.bpf.program import Program, enable_statistics
from fusefs.bpf.syscall import ENOTSUPP
from fusefs.bpf.task import allow_interrupts
from fusefs.tree.run_request import Request, begin

PACKET = bytes(range(64))


@pytest.fixture(scope="module")
def code() -> Iterator[Loaded]:
    """Programs that refer to all that has a name."""
    with loaded("code") as code:
        yield code


@pytest.fixture
def classify(code: Loaded) -> Iterator[Program]:
    """One of three functions."""
    with code.program("classify") as program:
        yield program


# What it is made of.


def test_its_code_as_bpftool_has_it(bpffs: Path, tmp_path: Path, classify: Program) -> None:
    pin(bpffs / "sample", classify)
    command = ("bpftool", "prog", "dump", "xlated", "pinned", bpffs / "sample", "file")
    checked(*command, tmp_path / "dump")
    assert classify.xlated() == (tmp_path / "dump").read_bytes()
    told = json.loads(checked("bpftool", "-j", "prog", "show", "pinned", bpffs / "sample"))
    assert classify.map_ids() == told["map_ids"]
    assert bytes(classify.info.tag).hex() == told["tag"]
    assert len(classify.jited()) == told["bytes_jited"]


def test_its_functions_and_source_lines(classify: Program) -> None:
    with BtfObject.from_id(classify.info.btf_id) as btf_object:
        btf = btf_object.parse()
    functions = classify.functions()
    names = [getattr(btf.type(function.type_id), "name", "") for function in functions]
    assert names == ["classify", "length_of", "verdict"]
    starts = [function.first for function in functions]
    assert starts[0] == 0 and starts == sorted(set(starts))
    instructions = len(classify.xlated()) // 8
    assert starts[-1] < instructions
    source = (Path(__file__).parents[1] / "programs/code.bpf.c").read_text().splitlines()
    lines = classify.lines()
    assert len(lines) == classify.info.nr_line_info > 10
    for line in lines:
        assert 0 <= line.instruction < instructions
        assert btf.string(line.file).endswith("code.bpf.c")
        if line.number:  # else it is the compiler's own
            assert btf.string(line.text) == source[line.number - 1]


def test_its_machine_code_by_function(classify: Program) -> None:
    machine = classify.machine()
    assert b"".join(code for _address, code in machine.functions) == classify.jited() != b""
    assert [len(code) for _address, code in machine.functions] == classify.function_lengths()
    kallsyms = {
        int(address, 16): name
        for address, _kind, name, *_ in map(
            str.split, Path("/proc/kallsyms").read_text().splitlines()
        )
    }
    if not any(kallsyms):
        pytest.skip("this kernel hides its addresses")
    names = [kallsyms[address] for address, _code in machine.functions]
    # The first bears the tag of the whole.
    tags = [bytes(classify.info.tag).hex(), *classify.tags()[1:]]
    functions = zip(tags, ("classify", "length_of", "verdict"), strict=True)
    assert names == [f"bpf_prog_{tag}_{name}" for tag, name in functions]
    assert len(machine.lines) == len(classify.lines())
    ends = [(address, address + len(code)) for address, code in machine.functions]
    assert all(any(first <= line < end for first, end in ends) for line in machine.lines)


def test_one_without_types() -> None:
    with make_map() as made, using(made) as program:
        assert program.map_ids() == [made.info.id]
        assert (program.functions(), program.lines(), program.info.btf_id) == ([], [], 0)
        assert program.xlated()[-len(NOTHING) :] == NOTHING
        ((address, machine),) = program.machine().functions
        assert address >> 63 and machine == program.jited()


def test_a_large_one_is_loaded() -> None:
    with load(NOTHING[:8] * 50_000 + NOTHING[8:]) as program:
        assert len(program.xlated()) == 8 * 50_001


def test_what_the_verifier_has_against_one() -> None:
    with pytest.raises(OSError, match="R0 !read_ok") as caught:
        load(NOTHING[8:])
    assert caught.value.errno in (errno.EACCES, errno.EINVAL)


# Running it.


def test_a_packet(code: Loaded) -> None:
    with code.program("rewrites") as rewrites:
        outcome = rewrites.run(PACKET)
        turned = bytes(255 - byte for byte in PACKET[:14]) + PACKET[14:-4]
        assert (outcome.retval, outcome.data, outcome.context) == (3, turned, b"")
        assert outcome.duration > 0
    with code.program("jumps") as jumps:
        assert [jumps.run(PACKET[:length]).retval for length in (64, 14)] == [7, -7]


def test_a_context(code: Loaded) -> None:
    with code.program("on_context") as program:
        outcome = program.run(b"", struct.pack("=QQ", 20, 11))
        assert outcome.retval == 42
    with code.program("classify") as classify:
        metadata = struct.pack("=6I", 0, len(PACKET), 0, 0, 0, 0)
        assert classify.run(PACKET, metadata).context == metadata


def test_a_context_that_is_changed() -> None:
    with loaded("code_kernel") as kernel, kernel.program("calls_the_kernel") as program:
        outcome = program.run(b"", struct.pack("=iIQ", os.getpid(), 9, 8))
        assert outcome.retval == -3
        assert outcome.context == struct.pack("=iIQ", os.getpid(), 1, 8)


def test_a_packet_that_grows() -> None:
    # r2 = -100; call bpf_xdp_adjust_head; r0 = 2; exit
    longer = bytes.fromhex("b70200009cffffff850000002c000000b7000000020000009500000000000000")
    with load(longer, XDP) as program:
        outcome = program.run(PACKET)
        assert len(outcome.data) == len(PACKET) + 100
        assert outcome.data.endswith(PACKET)


@pytest.mark.parametrize("data", [b"", b"13 bytes long", bytes(1 << 17)])
def test_what_is_no_packet(code: Loaded, data: bytes) -> None:
    with code.program("jumps") as jumps, pytest.raises(OSError) as caught:
        jumps.run(data)
    assert caught.value.errno == errno.EINVAL


def test_types_that_cannot_be_run() -> None:
    with loaded() as others, others.program("on_event") as program:
        with pytest.raises(OSError) as caught:
            program.run(PACKET)
        assert caught.value.errno == ENOTSUPP


def test_runs_are_counted_while_statistics_are_on() -> None:
    with load() as program:
        fd = enable_statistics()
        try:
            run(program, 100)
        finally:
            os.close(fd)
        now = program.information()
        assert (now.run_cnt, program.info.run_cnt) == (100, 0)
        assert now.run_time_ns > 0


def test_only_some_run_at_a_time() -> None:
    request = Request(bytes(64), b"", {"repeat": 4_000_000_000})
    with load(kind=XDP) as program, contextlib.ExitStack() as stack:
        allow_interrupts()
        for _ in range(4):
            begun = begin(program, request)
            stack.callback(begun.leave)
            stack.callback(begun.join)
            stack.callback(begun.interrupt)
        with pytest.raises(OSError, match="too many programs are being run"):
            begin(program, request)
    with contextlib.closing(load(kind=XDP)) as program:
        again = begin(program, Request(bytes(64), b"", {}))
        again.join()
        assert json.loads(again.result())["retval"] == 0
        again.leave()


def test_a_run_that_cannot_begin_takes_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def dup(_fd: int) -> int:
        raise OSError(errno.EMFILE, "too many")

    with load(kind=XDP) as program:
        with monkeypatch.context() as patched:
            patched.setattr(os, "dup", dup)
            for _ in range(5):
                with pytest.raises(OSError, match="too many"):
                    begin(program, Request(bytes(64), b"", {}))
        begun = begin(program, Request(bytes(64), b"", {}))
        begun.join()
        assert json.loads(begun.result())["retval"] == 0
        begun.leave()
