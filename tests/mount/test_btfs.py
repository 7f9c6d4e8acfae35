"""`.by-id/btfs/`: the types that the kernel holds, its own among them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml
from support.maps import exists, make_map
from support.mounting import Mount
from support.running import run_raw
from support.shell import checked
from support.waiting import eventually

from fusefs.bpf.bpffs import Directory
from fusefs.bpf.btf import KERNEL_BTF
from fusefs.bpf.btf_build import BtfBuilder
from fusefs.bpf.btf_object import BtfObject
from fusefs.bpf.program import Program

PROGRAMS = Path(__file__).parents[1] / "programs"
STRICT = ["-Wall", "-Wextra", "-Werror", "-std=gnu11"]
MEGABYTE = 1 << 20


def of(mount: Mount, btf: BtfObject) -> Path:
    """The directory of a BTF object."""
    return mount.path / f".by-id/btfs/{btf.info.id}"


def pair() -> BtfObject:
    """A few types."""
    made = BtfBuilder()
    number = made.integer("int", 4, signed=True)
    inner = made.struct("", 4, [("b", number, 0)])
    made.struct("pair", 8, [("a", number, 0), ("inner", inner, 32)])
    made.enum("", 4, [("LOOSE", 7)])
    return BtfObject.load(made.build())


@pytest.fixture
def kernels(mounted: Mount) -> Path:
    """The directory of the kernel's own."""
    for number in BtfObject.ids():
        with BtfObject.from_id(number) as one:
            if one.name == "vmlinux":
                return of(mounted, one)
    pytest.skip("this kernel has no BTF")


@pytest.fixture(scope="module")
def header(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place for the kernel's header, which takes a second or two to read."""
    return tmp_path_factory.mktemp("header") / "types.h"


@pytest.fixture
def kernels_header(kernels: Path, header: Path) -> Path:
    """The kernel's header, copied."""
    if not header.exists():
        checked("cp", kernels / "types.h", header)
    return header


def resident(mount: Mount) -> int:
    """The memory of the process, in bytes."""
    pages = int(Path(f"/proc/{mount.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


# What there is


def test_a_programs(mounted: Mount) -> None:
    with pair() as btf:
        path = of(mounted, btf)
        assert sorted(os.listdir(path)) == ["btf", "error_log", "info", "info.json", "types.h"]
        info = json.loads((path / "info.json").read_text())
        assert yaml.safe_load((path / "info").read_text()) == info
        size = len(btf.blob())
        told = {"name": "", "id": btf.info.id, "kernel_btf": False, "size": size, "types": 4}
        assert told.items() <= info.items()
        assert "base" not in info
        assert (path / "btf").read_bytes() == btf.blob()
        assert os.stat(path / "btf").st_size == size


def test_a_maps(mounted: Mount) -> None:
    """It is the same file in the directory of a map that has types, and in no other."""
    with make_map() as typed, make_map(key=4, value=8) as plain:
        mounted.pin("typed", typed)
        mounted.pin("plain", plain)
        (mounted.source / "typed").chmod(0o644)
        path = mounted.path / "typed/btf"
        with BtfObject.from_id(typed.info.btf_id) as btf:
            assert path.read_bytes() == btf.blob()
            assert (path.stat().st_size, path.stat().st_mode & 0o777) == (len(btf.blob()), 0o400)
        assert "btf" in os.listdir(path.parent)
        assert "btf" not in os.listdir(mounted.path / "plain")
        assert not (mounted.path / "plain/btf").exists()


def test_the_kernels(kernels: Path) -> None:
    told = json.loads(checked("bpftool", "-j", "btf", "show"))
    (shown,) = (one for one in told if one.get("name") == "vmlinux")
    info = json.loads((kernels / "info.json").read_text())
    assert (info["name"], info["id"], info["size"]) == ("vmlinux", shown["id"], shown["size"])
    assert info["kernel_btf"] is shown["kernel"] is True
    lines = checked("bpftool", "btf", "dump", "id", str(shown["id"])).splitlines()
    assert info["types"] == sum(line.startswith("[") for line in lines)


def test_all_are_there(mounted: Mount) -> None:
    with pair():
        told = json.loads(checked("bpftool", "-j", "btf", "show"))
        listed = os.listdir(mounted.path / ".by-id/btfs")
        assert {str(one["id"]) for one in told} == set(listed)


def test_nothing_can_be_written(mounted: Mount) -> None:
    with pair() as btf:
        path = of(mounted, btf)
        for name in ("btf", "types.h", "info"):
            assert os.stat(path / name).st_mode & 0o777 == 0o400
            with pytest.raises(PermissionError):
                os.open(path / name, os.O_WRONLY)


# `btf`


def test_the_blob_is_the_kernels(mounted: Mount, kernels: Path, tmp_path: Path) -> None:
    blob = kernels / "btf"
    assert os.stat(blob).st_size == os.stat(KERNEL_BTF).st_size
    done = mounted.sh(
        f"cmp {blob} {KERNEL_BTF} && cp {blob} {tmp_path}/a && cmp {blob} {tmp_path}/a"
    )
    assert done.code == 0, done
    part = "bs=1 skip=1000003 count=5000"
    done = mounted.sh(
        f"cmp <(dd if={blob} {part} status=none) <(dd if={KERNEL_BTF} {part} status=none)"
    )
    assert done.code == 0, done


def test_bpftool_reads_it(mounted: Mount, kernels: Path) -> None:
    with pair() as btf:
        for path in (of(mounted, btf), kernels):
            of_file = checked("bpftool", "btf", "dump", "file", path / "btf")
            assert of_file == checked("bpftool", "btf", "dump", "id", path.name)
            assert of_file.count("\n") > 4


def test_each_read_costs_the_same(kernels: Path) -> None:
    """To have the blob from the kernel takes some milliseconds; that is done once."""
    whole = KERNEL_BTF.read_bytes()
    with (kernels / "btf").open("rb", buffering=0) as file:
        start = time.monotonic()
        for offset in range(0, len(whole), len(whole) // 1000):
            assert os.pread(file.fileno(), 16, offset) == whole[offset : offset + 16]
        assert time.monotonic() - start < 1
        assert os.pread(file.fileno(), 16, len(whole) - 3) == whole[-3:]
        assert os.pread(file.fileno(), 16, len(whole)) == b""


def test_its_memory_is_given_back(mounted: Mount, kernels: Path) -> None:
    size = os.stat(kernels / "btf").st_size
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            stack.enter_context((kernels / "btf").open("rb", buffering=0)).read(1)
        full = resident(mounted)
    eventually("it is given back", lambda: full - resident(mounted) > 3.9 * size)


# `types.h`


def test_declarations_of_a_program(mounted: Mount, tmp_path: Path) -> None:
    with pair() as btf:
        number = btf.info.id
        with (of(mounted, btf) / "types.h").open() as file:
            size = os.fstat(file.fileno()).st_size
            text = file.read()
        assert size == len(text)
    guard = f"BPF_BTF_{number}_TYPES_H"
    declared = (
        "struct pair {\n\tint a;\n\tstruct {\n\t\tint b;\n\t} inner;\n};\n\n"
        "enum {\n\tLOOSE = 7,\n};\n"
    )
    title = f"/* Types of btf {number} */"
    assert text == f"#ifndef {guard}\n#define {guard}\n\n{title}\n\n{declared}\n#endif\n"
    source = tmp_path / "uses.c"
    source.write_text(f'{text}{text}_Static_assert(sizeof(struct pair) + LOOSE == 15, "");\n')
    checked("clang", *STRICT, "-fsyntax-only", source)


COMPILERS = [["clang"], ["clang", "-target", "bpf"], ["clang", "-target", "bpf", "-g", "-O2"]]


@pytest.mark.parametrize("compiler", COMPILERS, ids=" ".join)
def test_the_kernels_header_compiles(
    kernels_header: Path, tmp_path: Path, compiler: list[str]
) -> None:
    source = tmp_path / "uses.c"
    source.write_text(
        f'#include "{kernels_header}"\n#include "{kernels_header}"\n'
        "#ifndef __VMLINUX_H__\n#error libbpf would take it for the headers of user space\n#endif\n"
        "int pid(struct task_struct *task) { return true ? task->tgid : 0; }\n"
    )
    checked(*compiler, *STRICT, "-c", source, "-o", tmp_path / "uses.o")


def names(text: str) -> Counter[tuple[str, str]]:
    """What a header defines, without the numbers behind names of several things."""
    tags = re.findall(r"^(struct|union|enum) (\w+) \{(?:$|\};)", text, re.MULTILINE)
    constants = re.findall(r"^(\t)\t*(\w+) = -?[0-9].*,$", text, re.MULTILINE)
    return Counter((kind, name.partition("___")[0]) for kind, name in tags + constants)


def test_the_kernels_header_has_what_bpftools_has(kernels_header: Path) -> None:
    told = checked("bpftool", "btf", "dump", "file", KERNEL_BTF, "format", "c")
    text = kernels_header.read_text()
    ours, theirs = names(text), names(told)
    assert theirs.total() > 20_000
    assert ours == theirs
    for name in ("__u8", "u64", "pid_t", "bool", "gfp_t"):
        (line,) = re.findall(rf"^typedef .*\b{name};$", told, re.MULTILINE)
        assert f"\n{line}\n" in text


def test_a_program_that_is_relocated(mounted: Mount, kernels_header: Path, tmp_path: Path) -> None:
    """It finds the member of a struct that was elsewhere when it was compiled."""
    text, moved = re.subn(
        r"^struct task_struct \{$", r"\g<0>\n\tchar moved[640];", kernels_header.read_text(),
        flags=re.MULTILINE,
    )  # fmt: skip
    assert moved == 1
    (tmp_path / "types.h").write_text(text)
    command = ["clang", "-target", "bpf", "-g", "-O2", f"-I{tmp_path}", "-c"]
    source = PROGRAMS / "relocated.c"
    for name, option in [("relocated", "-DSOME"), ("fixed", "-DBPF_NO_PRESERVE_ACCESS_INDEX")]:
        compiled = tmp_path / f"{name}.o"
        checked(*command, option, source, "-o", compiled)
        checked("bpftool", "prog", "load", compiled, mounted.source / name)
        directory = Directory(str(mounted.source))
        with directory.open_pin(name, directory.stat(name).st_ino) as program:
            assert isinstance(program, Program)
            assert (run_raw(program) == os.getpid()) == (name == "relocated")


def test_the_header_comes_soon(kernels: Path) -> None:
    (kernels / "info").read_text()  # the kernel's types are read once, for all
    start = time.monotonic()
    with (kernels / "types.h").open("rb", buffering=0) as file:
        assert file.read(1 << 16).startswith(b"#ifndef __VMLINUX_H__\n")
        while b"struct " not in file.read(1 << 16):
            pass
    assert time.monotonic() - start < 3


def test_the_header_takes_little_memory(mounted: Mount, kernels: Path) -> None:
    (kernels / "info").read_text()
    Path(f"/proc/{mounted.process.pid}/clear_refs").write_text("5")  # begins a new VmHWM
    before = resident(mounted)
    start = time.monotonic()
    for _ in range(2):
        with (kernels / "types.h").open("rb", buffering=0) as file:
            assert sum(map(len, iter(lambda: file.read(1 << 20), b""))) > MEGABYTE
    assert time.monotonic() - start < 20
    assert resident(mounted) - before < 30 * MEGABYTE
    status = Path(f"/proc/{mounted.process.pid}/status").read_text()
    (peak,) = re.findall(r"^VmHWM:\s+([0-9]+) kB$", status, re.MULTILINE)
    assert int(peak) * 1024 - before < 50 * MEGABYTE


def test_others_are_served_meanwhile(mounted: Mount, kernels: Path) -> None:
    mounted.pin("other", make_map())
    name = mounted.path / "other/info"
    name.read_text()
    (kernels / "info").read_text()
    times = []
    with subprocess.Popen(["cat", kernels / "types.h"], stdout=subprocess.DEVNULL) as reader:
        while reader.poll() is None:
            start = time.monotonic()
            assert name.read_text()
            times.append(time.monotonic() - start)
        assert reader.returncode == 0
    assert len(times) > 20
    times.sort()
    assert times[len(times) // 2] < 0.1
    assert times[-1] < 2


def test_it_is_read_again_from_its_start(kernels: Path) -> None:
    with (kernels / "types.h").open("rb", buffering=0) as file:
        first = b"".join(file.read(1000) for _ in range(40))
        file.seek(0)
        assert b"".join(file.read(1000) for _ in range(40)) == first


# Objects that go


def test_it_goes_with_the_object(mounted: Mount) -> None:
    """What is open can be read still, and lets it go when it is closed."""
    with contextlib.ExitStack() as stack:
        with pair() as btf:
            number, path, blob = btf.info.id, of(mounted, btf), btf.blob()
            raw = stack.enter_context((path / "btf").open("rb", buffering=0))
            header = stack.enter_context((path / "types.h").open("rb", buffering=0))
        assert exists(BtfObject, number)
        assert raw.readall() == blob
        assert b"struct pair {" in header.readall()
    eventually("it is gone", lambda: not exists(BtfObject, number), 1)
    for name in ("btf", "types.h", "info"):
        with pytest.raises(FileNotFoundError):
            os.open(path / name, os.O_RDONLY)
    eventually("its directory is gone", lambda: not path.exists(), 1)
    assert str(number) not in os.listdir(path.parent)
