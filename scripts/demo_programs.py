"""Sample programs: what clang would have made of some lines of C, without clang.

__u64 *packets = bpf_map_lookup_elem(&drops, &queue);     and so on: see `_COUNT` and the others
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

from fusefs.bpf.bpffs import Directory
from fusefs.bpf.btf import Composite, Kind, kernel_btf
from fusefs.bpf.btf_build import BtfBuilder
from fusefs.bpf.btf_object import BtfObject
from fusefs.bpf.link import Link
from fusefs.bpf.map import Map, MapType
from fusefs.bpf.program import Function, Program, SourceLine

XDP, TRACING = 6, 26  # enum bpf_prog_type
TRACE_ITER = 28  # enum bpf_attach_type
LOOKUP, TAIL_CALL, SEQ_PRINTF = 1, 12, 126  # enum bpf_func_id
FORMAT = b"%5d %6d %s\n"


def instruction(code: int, dst: int = 0, src: int = 0, offset: int = 0, imm: int = 0) -> bytes:
    return struct.pack("=BBhi", code, src << 4 | dst, offset, imm)


# Instructions by what they do; r0 to r10 are numbers.


def move(dst: int, src: int) -> bytes:
    return instruction(0xBF, dst, src)


def move_number(dst: int, number: int) -> bytes:
    return instruction(0xB7, dst, imm=number)


def add_number(dst: int, number: int) -> bytes:
    return instruction(0x07, dst, imm=number)


def load32(dst: int, src: int, offset: int) -> bytes:
    return instruction(0x61, dst, src, offset)


def load64(dst: int, src: int, offset: int) -> bytes:
    return instruction(0x79, dst, src, offset)


def store32(dst: int, offset: int, src: int) -> bytes:
    return instruction(0x63, dst, src, offset)


def store64(dst: int, offset: int, src: int) -> bytes:
    return instruction(0x7B, dst, src, offset)


def load_map(dst: int, bpf_map: Map) -> bytes:
    return instruction(0x18, dst, 1, imm=bpf_map.fd) + instruction(0)


def load_bytes(dst: int, eight: bytes) -> bytes:
    low, high = struct.unpack("=ii", eight)
    return instruction(0x18, dst, imm=low) + instruction(0, imm=high)


def call(helper: int) -> bytes:
    return instruction(0x85, imm=helper)


def skip_if_zero(register: int, count: int) -> bytes:
    return instruction(0x15, register, offset=count)


EXIT = instruction(0x95)


class Statement(NamedTuple):
    """A line of C, and what it is compiled to."""

    text: str
    code: bytes


def _count(drops: Map) -> list[Statement]:
    return [
        Statement(
            "    __u32 queue = ctx->rx_queue_index & 3;",
            load32(1, 1, 16) + instruction(0x57, 1, imm=3) + store32(10, -4, 1),
        ),
        Statement(
            "    __u64 *packets = bpf_map_lookup_elem(&drops, &queue);",
            move(2, 10) + add_number(2, -4) + load_map(1, drops) + call(LOOKUP),
        ),
        Statement("    if (packets)", skip_if_zero(0, 3)),
        Statement("        *packets += 1;", load64(1, 0, 0) + add_number(1, 1) + store64(0, 0, 1)),
        Statement("    return XDP_PASS;", move_number(0, 2) + EXIT),
    ]


def _dispatch(stages: Map) -> list[Statement]:
    return [
        Statement(
            "    bpf_tail_call(ctx, &stages, 0);",
            load_map(2, stages) + move_number(3, 0) + call(TAIL_CALL),
        ),
        Statement("    return XDP_PASS;", move_number(0, 2) + EXIT),
    ]


def _list_maps(offsets: dict[str, int]) -> list[Statement]:
    arguments = (
        load32(1, 7, offsets["id"]) + store64(10, -24, 1)
        + load32(1, 7, offsets["max_entries"]) + store64(10, -16, 1)
        + move(1, 7) + add_number(1, offsets["name"]) + store64(10, -8, 1)
    )  # fmt: skip
    text = FORMAT.ljust(16, b"\0")
    print_it = (
        load_bytes(1, text[:8]) + store64(10, -40, 1)
        + load_bytes(1, text[8:]) + store64(10, -32, 1)
        + move(1, 6) + move(2, 10) + add_number(2, -40) + move_number(3, len(FORMAT) + 1)
        + move(4, 10) + add_number(4, -24) + move_number(5, 24) + call(SEQ_PRINTF)
    )  # fmt: skip
    skipped = len(arguments + print_it) // 8
    return [
        Statement("    struct seq_file *seq = ctx->meta->seq;", load64(6, 1, 0) + load64(6, 6, 0)),
        Statement("    struct bpf_map *map = ctx->map;", load64(7, 1, 8)),
        Statement("    if (map)", skip_if_zero(7, skipped)),
        Statement(
            '        BPF_SEQ_PRINTF(seq, "%5d %6d %s\\n", map->id, map->max_entries, map->name);',
            arguments + print_it,
        ),
        Statement("    return 0;", move_number(0, 0) + EXIT),
    ]


def _list_names(offsets: dict[str, int]) -> list[Statement]:
    print_it = (
        load_bytes(1, b"%s\n".ljust(8, b"\0")) + store64(10, -16, 1)
        + move(1, 7) + add_number(1, offsets["name"]) + store64(10, -8, 1)
        + move(1, 6) + move(2, 10) + add_number(2, -16) + move_number(3, len(b"%s\n") + 1)
        + move(4, 10) + add_number(4, -8) + move_number(5, 8) + call(SEQ_PRINTF)
    )  # fmt: skip
    return [
        Statement("    struct seq_file *seq = ctx->meta->seq;", load64(6, 1, 0) + load64(6, 6, 0)),
        Statement("    struct bpf_map *map = ctx->map;", load64(7, 1, 8)),
        Statement("    if (map)", skip_if_zero(7, len(print_it) // 8)),
        Statement('        BPF_SEQ_PRINTF(seq, "%s\\n", map->name);', print_it),
        Statement("    return 0;", move_number(0, 0) + EXIT),
    ]


def load(
    kind: int,
    name: str,
    context: str,
    statements: Sequence[Statement],
    attach_type: int = 0,
    attach_btf_id: int = 0,
) -> Program:
    """Load a function of this name, whose parameter points to a struct `context`."""
    types = BtfBuilder()
    integer = types.integer("int", 4, signed=True)
    u32 = types.typedef("__u32", types.integer("unsigned int", 4))
    fields = (
        "data",
        "data_end",
        "data_meta",
        "ingress_ifindex",
        "rx_queue_index",
        "egress_ifindex",
    )
    members = [(field, u32, 32 * at) for at, field in enumerate(fields)]
    struct_id = types.struct(context, 24, members) if kind == XDP else types.forward(context)
    prototype = types.prototype(integer, [("ctx", types.pointer(struct_id))])
    function = types.function(name, prototype)
    file = types.string("demo.bpf.c")
    lines, at = [], 0
    texts = [Statement(f"int {name}(struct {context} *ctx)", b""), *statements]
    for number, statement in enumerate(texts, 1):
        if statement.code:
            text = types.string(statement.text)
            lines.append(SourceLine(at, file, text, number + (number > 1)))
        at += len(statement.code) // 8
    with BtfObject.load(types.build()) as btf:
        return Program.load(
            kind, b"".join(statement.code for statement in statements), name=name,
            btf=btf, functions=[Function(0, function)], lines=lines,
            attach_type=attach_type, attach_btf_id=attach_btf_id,
        )  # fmt: skip


def _map_offsets() -> tuple[int, dict[str, int]] | None:
    """What the iterator over maps is attached to, and where some members of `struct bpf_map` are in
    this kernel; None where it does not tell."""
    btf = kernel_btf()
    function = btf.find("bpf_iter_bpf_map", Kind.FUNC) if btf else None
    type_id = btf.find("bpf_map", Kind.STRUCT) if btf else None
    if not btf or not function or not type_id:
        return None
    bpf_map = btf.type(type_id)
    assert isinstance(bpf_map, Composite)
    offsets = {member.name: member.bit_offset // 8 for member in bpf_map.members}
    return function, offsets


def pin_programs(directory: Directory, there: set[str]) -> None:
    """Pin the programs, the table that one calls the other through, and the iterator, but for those
    that are there. None of them is attached to anything that happens."""
    if not {"count", "stages", "dispatch"} & there:
        with directory.open_pin("drops", directory.stat("drops").st_ino) as drops:
            assert isinstance(drops, Map)
            count = load(XDP, "count", "xdp_md", _count(drops))
        stages = Map.create(
            MapType.PROG_ARRAY, key_size=4, value_size=4, max_entries=4, name="stages"
        )
        with count, stages, load(XDP, "dispatch", "xdp_md", _dispatch(stages)) as dispatch:
            stages.update(bytes(4), struct.pack("=I", count.fd))
            for name, made in {"count": count, "stages": stages, "dispatch": dispatch}.items():
                directory.pin(name, made)
    if "list_maps" not in there and (program := _iterator("list_maps", _list_maps)):
        with program, Link.create(program, TRACE_ITER) as link:
            directory.pin("list_maps", link)


def _iterator(name: str, statements: Callable[[dict[str, int]], list[Statement]]) -> Program | None:
    """A program for an iterator over maps; None where the kernel does not tell what it needs."""
    found = _map_offsets()
    if not found:
        return None
    function, offsets = found
    return load(
        TRACING, name, "bpf_iter__bpf_map", statements(offsets),
        attach_type=TRACE_ITER, attach_btf_id=function,
    )  # fmt: skip


def list_names() -> Program | None:
    """A program that `list_maps` can be given in place of its own: it prints names alone."""
    return _iterator("list_names", _list_names)
