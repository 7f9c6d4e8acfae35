"""The table of map types: one row for each that the running kernel has."""

from __future__ import annotations

import pytest

from fusefs.bpf.btf import Enum, Kind, kernel_btf
from fusefs.bpf.map import MapType
from fusefs.tree.map_files import FILES, TABLES
from fusefs.tree.map_types import MAP_TYPES, Shape

PREFIX = "BPF_MAP_TYPE_"


def kernels_types() -> dict[int, str]:
    """Number to name, from the kernel's own `enum bpf_map_type`. A number that was given another
    name (as cgroup_storage was) has the last one."""
    btf = kernel_btf()
    if btf is None:
        pytest.skip("this kernel has no BTF")
    found = btf.find("bpf_map_type", Kind.ENUM)
    assert found
    kernel_type = btf.type(found)
    assert isinstance(kernel_type, Enum)
    names = {number: name.removeprefix(PREFIX) for name, number in kernel_type.values}
    return {n: name for n, name in names.items() if not name.startswith("__") and n}


def test_each_type_of_the_kernel_has_a_row() -> None:
    missing = {number: name for number, name in kernels_types().items() if number not in MAP_TYPES}
    assert missing == {}


def test_types_are_called_what_the_kernel_calls_them() -> None:
    known = {int(kind): kind.name for kind in MapType}
    kernels = kernels_types()
    assert {number: known[number] for number in known if number in kernels} == {
        number: name for number, name in kernels.items() if number in known
    }


def test_each_shape_has_its_files() -> None:
    assert set(FILES) == set(Shape)
    with_entries = {shape for shape, names in FILES.items() if "entries" in names}
    assert with_entries == set(TABLES)
    assert {traits.shape for traits in MAP_TYPES.values()} == set(Shape)


def test_what_is_not_shown_has_a_reason() -> None:
    all_of_it = {"entries.jsonl", "head", "records", "push"}
    for number, traits in MAP_TYPES.items():
        assert traits.hidden or not all_of_it.isdisjoint(FILES[traits.shape]), MapType(number).name
