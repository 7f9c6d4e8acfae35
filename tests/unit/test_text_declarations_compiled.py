"""C declarations of types, compiled: what clang makes of them is what was in the BTF."""

from __future__ import annotations

import platform
import subprocess
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import TypeVar

import pytest
from c_compiled import BPF, Comparison, asserted, clang, compiled_types, types_in
from c_strategies import Blob, blobs
from hypothesis import HealthCheck, given, settings

from fusefs.bpf import btf as bpf
from fusefs.bpf.btf import Btf, kernel_btf
from fusefs.bpf.btf_build import BtfBuilder
from fusefs.text.declarations import declarations

T = TypeVar("T")

PROGRAMS = Path(__file__).parents[1] / "programs"


def composites(btf: Btf) -> list[int]:
    """The ids of all structs and unions with names."""
    types = ((type_id, btf.type(type_id)) for type_id in range(1, len(btf)))
    return [type_id for type_id, found in types if isinstance(found, bpf.Composite) and found.name]


def mentions(btf: Btf, type_ids: Iterable[int]) -> list[str]:
    """The named structs and unions as C has them."""
    found = [btf.type(type_id) for type_id in type_ids]
    return [
        f"{'union' if one.is_union else 'struct'} {one.name}"
        for one in found
        if isinstance(one, bpf.Composite)
    ]


def compiled_alike(btf: Btf, type_ids: list[int], directory: Path) -> Comparison:
    """Declarations of named structs, compiled for BPF and for the host, are as in `btf`."""
    text = declarations(btf, type_ids)
    clang("\n".join([text, *asserted(btf, type_ids), ""]), directory, "-fsyntax-only")
    made = compiled_types(text, mentions(btf, type_ids), directory)
    comparison = Comparison(btf, made)
    for type_id in type_ids:
        comparison.named(type_id)
    assert comparison.structs >= len(type_ids)
    return comparison


def test_generated_types(tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("generated")
    structs, packed = 0, 0

    @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
    @given(blobs())
    def compiled(blob: Blob) -> None:
        nonlocal structs, packed
        structs += compiled_alike(blob.btf, blob.structs, directory).structs
        packed += declarations(blob.btf, blob.structs).count("((packed))")

    compiled()
    assert structs > 200
    assert packed > 50


def test_what_has_no_name_is_given_one_where_c_needs_it(tmp_path: Path) -> None:
    """A function takes it, whose declaration comes before the struct that has it as a member."""
    types = BtfBuilder()
    number = types.integer("int", 4, signed=True)
    enum = types.enum("", 1, [("E11", 0)])
    pair = types.struct("", 8, [("a", number, 0), ("b", number, 32)])
    taker = types.pointer(types.prototype(number, [("one", enum), ("two", types.pointer(pair))]))
    members = [("taker", taker, 0), ("one", enum, 64), ("two", pair, 96)]
    wanted = types.struct("s", 24, members)
    compiled_alike(Btf.parse(types.build()), [wanted], tmp_path)


def program_types(name: str, directory: Path) -> Btf:
    """The types of a program as it is written."""
    headers = f"-I/usr/include/{platform.machine()}-linux-gnu"
    compiled = directory / "program.o"
    command = ["clang", *BPF, headers, "-c", str(PROGRAMS / name), "-o", str(compiled)]
    subprocess.run(command, check=True)
    return types_in(compiled)


@pytest.mark.parametrize("name", ["churn", "globals", "kinds", "many_types", "xdp_count"])
def test_programs(name: str, tmp_path: Path) -> None:
    """All types of a program, its functions, and the variables of its sections."""
    btf = program_types(f"{name}.bpf.c", tmp_path)
    structs = composites(btf)
    assert compiled_alike(btf, structs, tmp_path).members > 0
    everything = declarations(btf, range(1, len(btf)))
    clang(everything, tmp_path)
    clang(everything, tmp_path, *BPF)
    assert "\nextern " in everything


def test_kinds_of_declarations(tmp_path: Path) -> None:
    """What is no struct comes through as well: typedefs, enumerations, tags, functions."""
    btf = program_types("kinds.bpf.c", tmp_path)
    roots = [
        type_id
        for type_id in range(1, len(btf))
        if isinstance(btf.type(type_id), bpf.Function | bpf.DataSection)
    ]
    text = declarations(btf, roots)
    assert "typedef int (*visitor)(struct node *, const void *, ...);" in text
    assert 'const struct node __btf_type_tag("user") __btf_type_tag("rcu") *two;' in text
    assert 'char __btf_type_tag("user") *__btf_type_tag("rcu") *three;' in text
    assert "int helper(struct bits *given __btf_decl_tag(" in text
    kept = ["struct tagged", "number", "visitor"]
    made = compiled_types(text, kept, tmp_path)
    assert tags(made) >= {("one", "user"), ("two", "rcu"), ("two", "user"), ("three", "rcu")}
    assert decl_tags(made) >= {(3, "four"), (3, "4"), (4, "five"), (-1, "whole"), (-1, "number")}


def tags(btf: Btf) -> set[tuple[str, str]]:
    """The type tags of the members of `struct tagged`."""
    [tagged] = [one for one in types_of(btf, bpf.Composite) if one.name == "tagged"]
    found = set()
    for member in tagged.members:
        type_id = member.type_id
        while isinstance(target := btf.type(type_id), bpf.Pointer | bpf.Alias):
            if isinstance(target, bpf.Alias) and target.name:
                found.add((member.name, target.name))
            type_id = target.target
    return found


def decl_tags(btf: Btf) -> set[tuple[int, str]]:
    return {(tag.component, tag.name) for tag in types_of(btf, bpf.DeclTag)}


def types_of(btf: Btf, kind: type[T]) -> list[T]:
    return [one for type_id in range(len(btf)) if isinstance(one := btf.type(type_id), kind)]


def unique_names(btf: Btf) -> list[int]:
    """The kernel's structs whose names stand for one type, and whose members keep theirs."""
    ids = composites(btf)
    names = [getattr(btf.type(type_id), "name", "") for type_id in ids]
    times = Counter(names)
    return [type_id for type_id, name in zip(ids, names, strict=True) if times[name] == 1]


def test_the_kernels_types(tmp_path: Path) -> None:
    """A thousand structs of the kernel in one header; some of them member by member."""
    btf = kernel_btf()
    if btf is None:
        pytest.skip("this kernel has no BTF")
    found = [btf.find(name, bpf.Kind.STRUCT) for name in ("task_struct", "sk_buff", "net_device")]
    large = [type_id for type_id in found if type_id]
    ids = list({*Random(1).sample(unique_names(btf), 1000), *large})
    checks = asserted(btf, ids)
    assert len(checks) > 5000
    clang("\n".join([declarations(btf, ids, 1 << 24), *checks, ""]), tmp_path, "-fsyntax-only")
    small = [type_id for type_id in ids[:300] if getattr(btf.type(type_id), "size", 0) < 1 << 16]
    assert compiled_alike(btf, [*small, *large], tmp_path).members > 2000


def test_a_wrong_layout_is_noticed(tmp_path: Path) -> None:
    """The comparison above can fail."""
    types = BtfBuilder()
    number = types.integer("int", 4, signed=True)
    wanted = types.struct("s", 8, [("a", number, 0), ("b", number, 35, 3)])
    btf = Btf.parse(types.build())
    right = "struct s { int a; int : 3; int b : 3; };"
    wrong = {
        "name": "struct s { int a; int : 3; int c : 3; };",
        "width": "struct s { int a; int : 3; int b : 4; };",
        "place": "struct s { int a; int : 4; int b : 3; };",
        "size": "struct s { int a; int : 3; int b : 3; int : 0; int : 1; };",
        "type": "struct s { unsigned int a; int : 3; int b : 3; };",
        "packed": "struct s { int a; int : 3; int b : 3; } __attribute__((packed));",
    }
    Comparison(btf, compiled_types(right, ["struct s"], tmp_path)).named(wanted)
    for text in wrong.values():
        made = compiled_types(text, ["struct s"], tmp_path)
        with pytest.raises(AssertionError):
            Comparison(btf, made).named(wanted)
