"""BTF objects of the kernel: what they say of themselves, and their blobs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.maps import exists
from support.waiting import eventually

from fusefs.bpf import btf_object
from fusefs.bpf.btf import KERNEL_BTF, Btf, BtfError, kernel_btf
from fusefs.bpf.btf_build import BtfBuilder
from fusefs.bpf.btf_object import BtfObject
from fusefs.tree.info import describe


def loaded(name: str = "int", count: int = 1) -> tuple[BtfObject, bytes]:
    """A BTF object of so many types, and its blob."""
    made = BtfBuilder()
    number = made.integer(name, 4)
    for index in range(count - 1):
        made.typedef(f"{name}_{index}", number)
    blob = made.build()
    return BtfObject.load(blob), blob


def of_the_kernel() -> list[BtfObject]:
    """The kernel's own and those of its modules."""
    opened = [BtfObject.from_id(number) for number in BtfObject.ids()]
    return [one for one in opened if one.is_kernel]


@pytest.fixture
def vmlinux() -> BtfObject:
    """The kernel's own."""
    for one in of_the_kernel():
        if one.name == "vmlinux":
            return one
    pytest.skip("this kernel has no BTF")


def test_a_blob_of_a_program() -> None:
    made, blob = loaded(count=30)
    with made:
        assert made.info.btf_size == len(blob)
        assert (made.name, made.is_kernel, made.base) == ("", False, "")
        assert (made.first(), made.count()) == (1, 30)
        assert made.blob() == blob
        assert len(made.parse()) == 31


def test_the_kernels_own(vmlinux: BtfObject) -> None:
    with vmlinux:
        assert (vmlinux.base, vmlinux.first()) == ("", 1)
        assert vmlinux.parse() is kernel_btf()
        assert vmlinux.count() == len(Btf.parse(KERNEL_BTF.read_bytes())) - 1
        assert vmlinux.blob() == KERNEL_BTF.read_bytes()


def test_a_modules() -> None:
    modules = [one for one in of_the_kernel() if one.base]
    if not modules:
        pytest.skip("no module that has types is loaded")
    kernel = kernel_btf()
    assert kernel
    for module in modules:
        assert module.base == "vmlinux"
        assert module.blob() == KERNEL_BTF.with_name(module.name).read_bytes()
        assert module.first() == len(kernel)
        assert module.count() == len(module.parse()) - len(kernel)


def test_a_module_whose_kernel_is_hidden(
    vmlinux: BtfObject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its types cannot be told. The kernel's own blob stands for that of a module."""
    with vmlinux:
        monkeypatch.setattr(btf_object, "kernel_btf", lambda: None)
        assert len(vmlinux.parse()) == vmlinux.count() + 1
        monkeypatch.setattr(vmlinux, "name", "module")
        with pytest.raises(BtfError):
            vmlinux.parse()


def test_info(vmlinux: BtfObject) -> None:
    made, blob = loaded(count=3)
    with made, vmlinux:
        info = describe(made, None)
        told = {name: info.get(name) for name in ("name", "kernel_btf", "size", "types", "base")}
        wanted = {"name": "", "kernel_btf": False, "size": len(blob), "types": 3, "base": None}
        assert told == wanted
        assert info["id"] == made.info.id
        info = describe(vmlinux, None)
        assert (info["name"], info["kernel_btf"]) == ("vmlinux", True)
        assert (info["size"], info["types"]) == (KERNEL_BTF.stat().st_size, vmlinux.count())


def test_types_are_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made, _blob = loaded("often", 20)
    with made:
        assert made.count() == 20
        monkeypatch.delattr(BtfObject, "parse")
        assert made.count() == 20


def resident() -> int:
    """The memory of this process, in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


def test_its_memory_is_given_back(vmlinux: BtfObject) -> None:
    with vmlinux:
        size = vmlinux.info.btf_size
        before = resident()
        memory = vmlinux.mapped()
        assert resident() - before > size * 0.9
        assert memory[:] == KERNEL_BTF.read_bytes()
        before = resident()
        memory.close()
        assert before - resident() > size * 0.9


def test_what_is_gone() -> None:
    """An object lives as long as something holds it."""
    made, blob = loaded("fleeting", 5)
    number = made.info.id
    another = BtfObject.from_id(number)
    made.close()
    assert another.blob() == blob
    another.close()
    eventually("it is gone", lambda: not exists(BtfObject, number), 1)
    with pytest.raises(FileNotFoundError):
        BtfObject.from_id(number)
