"""The names of the kernel's numbers."""

from __future__ import annotations

import pytest

from fusefs.bpf import names
from fusefs.bpf.btf import kernel_btf
from fusefs.bpf.names import Enumeration

ALL = {name: value for name, value in vars(names).items() if isinstance(value, Enumeration)}
each = pytest.mark.parametrize("enumeration", ALL.values(), ids=ALL)


@pytest.fixture(autouse=True)
def forgotten() -> None:
    """No names are left from other tests."""
    names._names.cache_clear()


def without_btf(monkeypatch: pytest.MonkeyPatch, enumeration: Enumeration) -> dict[int, str]:
    """The names that a kernel without BTF is given."""
    with monkeypatch.context() as patched:
        patched.setattr(names, "kernel_btf", lambda: None)
        built_in = dict(names._names(enumeration))
    names._names.cache_clear()
    return built_in


@each
def test_the_built_in_names_are_the_kernels(
    monkeypatch: pytest.MonkeyPatch, enumeration: Enumeration
) -> None:
    if kernel_btf() is None:
        pytest.skip("this kernel has no BTF")
    built_in = without_btf(monkeypatch, enumeration)
    kernels = names._names(enumeration)
    assert len(built_in) > 10
    # A newer kernel has more of them, an older one fewer; those that both have are the same.
    assert {number: kernels.get(number, name) for number, name in built_in.items()} == built_in


@each
def test_numbers_without_a_name_stay_numbers(enumeration: Enumeration) -> None:
    assert names.name_of(enumeration, 1 << 30) == 1 << 30


def test_some_names() -> None:
    assert names.name_of(names.MAP_TYPE, 10) == "lru_percpu_hash"
    assert names.name_of(names.PROGRAM_TYPE, 6) == "xdp"
    assert names.name_of(names.LINK_TYPE, 6) == "xdp"
    assert names.name_of(names.ATTACH_TYPE, 37) == "xdp"
    assert names.flag_names(names.MAP_FLAGS, 0) == []
    assert names.flag_names(names.MAP_FLAGS, 1 | 1 << 7 | 1 << 30) == [
        "no_prealloc",
        "rdonly_prog",
        1 << 30,
    ]
