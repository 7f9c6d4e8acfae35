"""`types.h`: what a map or program is made of, for a C compiler."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from support.maps import make_map, types, u32
from support.mounting import Mount
from support.network import compile_program
from support.sections import load
from support.shell import checked
from support.waiting import eventually

from fusefs.bpf import syscall
from fusefs.bpf.btf import Btf, Composite, DataSection, Int, Kind, Variable, kernel_btf
from fusefs.bpf.btf_build import BtfBuilder
from fusefs.bpf.btf_object import BtfObject
from fusefs.bpf.map import Map, MapType

STRUCT_OPS = 26  # enum bpf_map_type
FLAGS = ["-Wall", "-Wextra", "-Werror", "-std=gnu11", "-fsyntax-only"]
TARGETS: list[list[str]] = [[], ["-target", "bpf", "-g", "-O2"]]


def compiles(
    header: Path,
    checks: Iterable[str],
    directory: Path,
    targets: Sequence[Sequence[str]] = TARGETS,
) -> None:
    """The header is without a warning on the host and for BPF, and all that is asserted holds. It
    may be included twice."""
    copy = directory / "types.h"
    copy.write_bytes(header.read_bytes())
    source = directory / "uses.c"
    source.write_text("\n".join(['#include "types.h"', '#include "types.h"', *checks, ""]))
    for target in targets:
        done = subprocess.run(
            ["clang", *FLAGS, *target, str(source)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{done.stderr}\n{copy.read_text()}"


def composites(btf: Btf, type_ids: Iterable[int]) -> list[str]:
    """What must hold of the structs and unions with names among types, and of what they hold."""
    lines: list[str] = []
    seen: set[int] = set()
    todo = list(type_ids)
    while todo:
        type_id = btf.strip(todo.pop())
        found = btf.type(type_id)
        if type_id in seen or not isinstance(found, Composite):
            continue
        seen.add(type_id)
        todo += [member.type_id for member in found.members]
        if not found.name:
            continue
        spelled = f"{'union' if found.is_union else 'struct'} {found.name}"
        lines.append(f'_Static_assert(sizeof({spelled}) == {found.size}, "");')
        for member in found.members:
            below = btf.type(btf.strip(member.type_id))
            old = isinstance(below, Int) and below.bits != below.size * 8
            if member.name and not member.bits and not old:
                place = f"__builtin_offsetof({spelled}, {member.name})"
                lines.append(f'_Static_assert({place} == {member.bit_offset // 8}, "");')
    return lines


def test_a_map(mounted: Mount, tmp_path: Path) -> None:
    sample = mounted.pin("sample", make_map(key="pair", value="config"))
    header = mounted.path / "sample/types.h"
    text = header.read_text()
    number = sample.info.id
    assert text.startswith(f"#ifndef BPF_MAP_{number}_TYPES_H\n#define BPF_MAP_{number}_TYPES_H\n")
    assert text.endswith("\n#endif\n")
    assert f"/* Types of map {number} */" in text
    assert "/* key: struct pair, 8 bytes */" in text
    assert "/* value: struct config, 28 bytes */" in text
    checks = composites(types().btf.parse(), [types().ids["pair"], types().ids["config"]])
    assert len(checks) > 7
    uses = "int f(struct pair *p, struct config *c) { return p->second + (c->mode == MODE_BLOCK); }"
    compiles(header, [*checks, uses], tmp_path)


def test_maps_without_types(mounted: Mount, tmp_path: Path) -> None:
    mounted.pin("bare", make_map(key=12, value=300))
    mounted.pin("per_cpu", make_map(MapType.PERCPU_HASH, key=4, value=6))
    mounted.pin("queue", make_map(MapType.QUEUE, key=0, value=8))
    for name, key, value in [("bare", 12, 300), ("per_cpu", 4, 6), ("queue", 0, 8)]:
        header = mounted.path / name / "types.h"
        text = header.read_text()
        assert f"/* key: no BTF, {key} bytes */" in text
        assert f"/* value: no BTF, {value} bytes */" in text
        compiles(header, ["int f(void);"], tmp_path)


def test_numbers(mounted: Mount, tmp_path: Path) -> None:
    mounted.pin("sample", make_map(key="be16", value="s32"))
    header = mounted.path / "sample/types.h"
    assert "/* key: __be16, 2 bytes */" in header.read_text()
    assert "/* value: int, 4 bytes */" in header.read_text()
    compiles(header, ['_Static_assert(sizeof(__be16) == 2, "");'], tmp_path)


@pytest.mark.parametrize("name", ["globals", "many_types", "xdp_count"])
def test_a_program_and_its_maps(mounted: Mount, tmp_path: Path, name: str) -> None:
    compiled = compile_program(name, tmp_path)
    if name == "xdp_count":
        program, maps = mounted.source / "program", mounted.source / "maps"
        os.mkdir(maps)
        checked("bpftool", "prog", "load", compiled, program, "type", "xdp", "pinmaps", maps)
    else:
        load(mounted, compiled).program.close()
    # The loader has put in where the variables are.
    info = json.loads((mounted.path / "program/info.json").read_text())
    with BtfObject.from_id(info["btf_id"]) as loaded:
        btf = loaded.parse()
    header = mounted.path / "program/types.h"
    text = header.read_text()
    function = {"globals": "count", "many_types": "nothing", "xdp_count": "xdp_count"}[name]
    assert re.search(rf"^(extern )?int {function}\(", text, re.MULTILINE), text
    sections = [
        found
        for type_id in range(1, len(btf))
        if isinstance(found := btf.type(type_id), DataSection)
        and found.name not in (".maps", "license", "version")
    ]
    for section in sections:
        for type_id, offset, _size in section.variables:
            variable = btf.type(type_id)
            assert isinstance(variable, Variable)
            comment = re.escape(f"/* {section.name} + {offset} */")
            pattern = rf"^.*\b{re.escape(variable.name.replace('.', '_'))}\b.*{comment}$"
            assert re.search(pattern, text, re.MULTILINE), variable.name
    variables = [variable[0] for section in sections for variable in section.variables]
    types_of = [found.type_id for one in variables if isinstance(found := btf.type(one), Variable)]
    compiles(header, composites(btf, types_of), tmp_path)
    for directory in (mounted.path / "maps").iterdir():
        compiles(directory / "types.h", map_checks(directory, btf), tmp_path, TARGETS[:1])


def map_checks(directory: Path, btf: Btf) -> list[str]:
    """What must hold of the types of a map's keys and values."""
    checks = []
    for line in (directory / "types.h").read_text().splitlines():
        told = re.fullmatch(
            r"/\* (?:key|value): ((?:struct|union) (\w+)), ([0-9]+) bytes \*/", line
        )
        if told:
            checks.append(f'_Static_assert(sizeof({told[1]}) == {told[3]}, "");')
            kind = Kind.STRUCT if told[1].startswith("struct") else Kind.UNION
            found = btf.find(told[2], kind)
            assert found
            checks += composites(btf, [found])
    return checks


def test_the_types_of_a_map_of_a_program_are_its_own(mounted: Mount, tmp_path: Path) -> None:
    """And no others: not those of the other maps in the same BTF."""
    os.mkdir(mounted.source / "maps")
    checked(
        "bpftool", "prog", "load", compile_program("xdp_count", tmp_path),
        mounted.source / "program", "type", "xdp", "pinmaps", mounted.source / "maps",
    )  # fmt: skip
    flows = (mounted.path / "maps/flows/types.h").read_text()
    assert "struct flow_key {" in flows
    assert "struct xdp_md" not in flows
    assert "struct flow_key" not in (mounted.path / "maps/protocols/types.h").read_text()


def test_types_of_the_kernel(mounted: Mount, tmp_path: Path) -> None:
    """A map of operations that BPF programs implement: its value is a struct of the kernel."""
    btf = kernel_btf()
    name = "bpf_struct_ops_tcp_congestion_ops"
    value_id = btf.find(name, Kind.STRUCT) if btf else None
    if not btf or not value_id:
        pytest.skip("this kernel has no such struct")
    value = btf.type(value_id)
    assert isinstance(value, Composite)
    arguments = syscall.CreateArguments(
        map_type=STRUCT_OPS,
        key_size=4,
        value_size=value.size,
        max_entries=1,
        map_name=b"ops",
        btf_fd=types().btf.fd,
        btf_vmlinux_value_type_id=value_id,
    )
    mounted.pin("ops", Map(syscall.bpf(syscall.Command.MAP_CREATE, arguments)))
    assert mounted.sh(f"grep '^value_type: struct {name}$' ops/info").code == 0
    header = mounted.path / "ops/types.h"
    text = header.read_text()
    assert f"/* value: struct {name}, {value.size} bytes */" in text
    assert "/* key: no BTF, 4 bytes */" in text
    assert f"struct {name} {{" in text
    assert "struct pair" not in text
    compiles(header, composites(btf, [value_id]), tmp_path)
    assert_steady(header)


def test_a_type_that_is_no_c(mounted: Mount, tmp_path: Path) -> None:
    """Names that C knows otherwise, and that end comments."""
    made = BtfBuilder()
    number = made.integer("unsigned int", 4)
    members = [("int", number, 0), ("class", number, 32), ("a", number, 64)]
    odd = made.struct("while", 12, members)
    with BtfObject.load(made.build()) as btf:
        odd_map = Map.create(
            MapType.HASH,
            key_size=4,
            value_size=12,
            max_entries=1,
            name="odd",
            btf=btf,
            key_type=number,
            value_type=odd,
        )
    mounted.pin("odd", odd_map)
    compiles(mounted.path / "odd/types.h", ["int f(void);"], tmp_path)


@pytest.mark.parametrize("name", ["typed", "bare", "big"])
def test_sizes_and_times(mounted: Mount, name: str) -> None:
    match name:
        case "typed":
            mounted.pin("sample", make_map(value="config"))
        case "bare":
            mounted.pin("sample", make_map(key=4, value=4))
        case _:
            made = BtfBuilder()
            number = made.integer("__u32", 4)
            members = [(f"member_{index}", number, index * 32) for index in range(5000)]
            big = made.struct("big", 20000, members)
            with BtfObject.load(made.build()) as btf:
                sample = Map.create(
                    MapType.HASH,
                    key_size=4,
                    value_size=20000,
                    max_entries=2,
                    btf=btf,
                    key_type=number,
                    value_type=big,
                )
            mounted.pin("sample", sample)
    assert_steady(mounted.path / "sample/types.h")


def assert_steady(header: Path) -> None:
    """Its size is what is read, and it never changes."""
    first = os.stat(header)
    text = header.read_bytes()
    assert first.st_size == len(text)
    assert first.st_mode & 0o777 == 0o400
    assert first.st_mtime_ns == os.stat(header.parent).st_mtime_ns
    for _ in range(3):
        Path("/proc/sys/vm/drop_caches").write_text("2\n")
        status = os.stat(header)
        assert header.read_bytes() == text
        assert (status.st_size, status.st_mtime_ns) == (first.st_size, first.st_mtime_ns)
    with pytest.raises(PermissionError):
        header.write_text("int x;\n")


def test_other_tools(mounted: Mount, tmp_path: Path) -> None:
    mounted.pin("sample", make_map(value="config"))
    result = mounted.sh(
        f"cp sample/types.h {tmp_path}/copy.h; cmp sample/types.h {tmp_path}/copy.h;"
        " cd sample; grep -c 'struct config {' types.h; stat -c %s types.h; wc -c < types.h"
    )
    count, size, length = result.stdout.split()
    assert (result.code, count) == (0, "1")
    assert size == length


def test_another_map_at_the_same_place(mounted: Mount) -> None:
    mounted.pin("sample", make_map(value="config"))
    header = mounted.path / "sample/types.h"
    assert "struct config {" in header.read_text()
    os.unlink(mounted.source / "sample")
    mounted.pin("sample", make_map(value="pair"))
    eventually("the new one's types", lambda: "struct pair {" in header.read_text())
    assert "struct config {" not in header.read_text()
    assert os.stat(header).st_size == len(header.read_bytes())


def test_a_format_is_no_type(mounted: Mount) -> None:
    """The declarations are of the types that the map has, however it is shown."""
    sample = mounted.pin("formatted", make_map(value="pair"))
    sample.update(u32(1), bytes(8))
    before = (mounted.path / "formatted/types.h").read_text()
    assert mounted.sh("echo 'value: hex' > formatted/format").code == 0
    assert (mounted.path / "formatted/types.h").read_text() == before
