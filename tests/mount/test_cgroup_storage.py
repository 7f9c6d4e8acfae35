"""cgroup_storage and percpu_cgroup_storage: what programs keep for cgroups."""

from __future__ import annotations

import errno
import json
import os
import struct
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.cgroups import cgroup
from support.maps import dump
from support.mounting import Mount
from support.network import compile_program
from support.shell import checked
from support.waiting import eventually

from fusefs.bpf.bpffs import Directory
from fusefs.bpf.cpus import possible_cpus
from fusefs.bpf.map import Map

CPUS = possible_cpus()
EGRESS = 1  # BPF_CGROUP_INET_EGRESS, linux/bpf.h
# From a cgroup, on one CPU, so many datagrams of a byte: its packets have 20 + 8 + 1 bytes.
_SENDS = """
import os, socket, sys
with open(sys.argv[1] + "/cgroup.procs", "w") as file:
    file.write(str(os.getpid()))
os.sched_setaffinity(0, {int(sys.argv[3])})
with socket.socket(type=socket.SOCK_DGRAM) as taker, socket.socket(type=socket.SOCK_DGRAM) as made:
    taker.bind(("127.0.0.1", 0))
    for _ in range(int(sys.argv[2])):
        made.sendto(b"x", taker.getsockname())
"""
PACKET = 29

kinds = pytest.mark.parametrize("kind", ["typed", "untyped", "shared"])
both = pytest.mark.parametrize("percpu", ["", "_percpu"])


@dataclass(frozen=True)
class Counted:
    """Two cgroups that programs are attached to, and a mount that shows their maps."""

    mount: Mount
    first: Path
    second: Path

    def map(self, name: str) -> Map:
        directory = Directory(str(self.mount.source / "maps"))
        opened = directory.open_pin(name, directory.stat(name).st_ino)
        assert isinstance(opened, Map)
        return opened

    def name(self, kind: str, path: Path) -> str:
        """What the entry of a cgroup is called."""
        number = os.stat(path).st_ino
        return str(number) if kind == "shared" else f"cgroup_inode_id={number},attach_type={EGRESS}"

    def file(self, kind: str, percpu: str, path: Path) -> Path:
        return self.mount.path / "maps" / f"{kind}{percpu}" / "entries" / self.name(kind, path)


def send(path: Path, packets: int, cpu: int = 0) -> None:
    """Send packets from within a cgroup."""
    checked(sys.executable, "-c", _SENDS, path, str(packets), str(cpu))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_program("cgroup_storage", tmp_path_factory.mktemp("programs"))


@pytest.fixture
def counted(mounted: Mount, compiled: Path) -> Iterator[Counted]:
    """3 packets were sent from the first cgroup, on the first CPU, and none from the second."""
    programs, maps = mounted.source / "programs", mounted.source / "maps"
    programs.mkdir()
    maps.mkdir()
    checked("bpftool", "prog", "loadall", compiled, programs, "pinmaps", maps)
    with ExitStack() as stack:
        paths = [stack.enter_context(cgroup("storage")) for _ in range(2)]
        for path in paths:
            for kind in ("typed", "untyped", "shared"):
                pin = programs / f"count_{kind}"
                checked("bpftool", "cgroup", "attach", path, "egress", "pinned", pin, "multi")
        send(paths[0], 3)
        yield Counted(mounted, *paths)


Numbers = tuple[int, int, int]  # packets, bytes, mark


def sent(packets: int, mark: int = 0) -> Numbers:
    """What programs have counted after so many packets."""
    return packets, packets * PACKET, mark


def shown(text: str, percpu: str) -> list[Numbers]:
    """The value in a file, or those of all CPUs: objects, or hexadecimal without a type."""
    read = json.loads(text)
    each = read if percpu else [read]
    return [
        struct.unpack("=III", bytes.fromhex(one)) if isinstance(one, str) else tuple(one.values())
        for one in each
    ]


@kinds
@both
def test_listing_and_reading(counted: Counted, kind: str, percpu: str) -> None:
    directory = counted.mount.path / "maps" / f"{kind}{percpu}"
    names = {counted.name(kind, path) for path in (counted.first, counted.second)}
    assert set(os.listdir(directory / "entries")) == names
    zero = [sent(0)] * (CPUS if percpu else 1)
    filled = [sent(3), *zero[1:]]
    for path, wanted in ((counted.first, filled), (counted.second, zero)):
        file = counted.file(kind, percpu, path)
        assert shown(file.read_text(), percpu) == wanted
        assert os.stat(file).st_size == len(file.read_bytes())
    assert (directory / "count").read_text() == "2\n"
    lines = [json.loads(line) for line in (directory / "entries.jsonl").read_text().splitlines()]
    keys = [line["key"] if kind == "shared" else line["key"]["cgroup_inode_id"] for line in lines]
    assert sorted(keys) == sorted(os.stat(p).st_ino for p in (counted.first, counted.second))
    assert counted.mount.sh(f"jq -c .value maps/{kind}{percpu}/entries.jsonl | wc -l").stdout == (
        "2\n"
    )
    assert counted.mount.sh(f"cd maps/{kind}{percpu}/entries; stat * && wc -c *").code == 0


@kinds
@pytest.mark.skipif(CPUS < 2, reason="there is one CPU")
def test_each_cpu_has_its_own_value(counted: Counted, kind: str) -> None:
    send(counted.second, 5, cpu=1)
    file = counted.file(kind, "_percpu", counted.second)
    assert shown(file.read_text(), "_percpu")[:2] == [sent(0), sent(5)]
    rows = [struct.pack("=III", 10 + cpu, 20 + cpu, 30 + cpu) for cpu in range(CPUS)]
    fields = ("packets", "bytes", "mark")
    each = [dict(zip(fields, struct.unpack("=III", row), strict=True)) for row in rows]
    file.write_text(json.dumps(each if kind == "typed" else [row.hex() for row in rows]) + "\n")
    with counted.map(f"{kind}_percpu") as made:
        assert made.stride == 16 * CPUS
        number = os.stat(counted.second).st_ino
        (found,) = (v for k, v in dump(made).items() if struct.unpack_from("=Q", k)[0] == number)
    assert [found[16 * cpu :][:12] for cpu in range(CPUS)] == rows
    send(counted.second, 1, cpu=1)  # goes on from what was written
    after = shown(file.read_text(), "_percpu")[1]
    assert after == (12, 21 + PACKET, 31)


def test_parts_of_a_value_are_set(counted: Counted) -> None:
    file = counted.file("typed", "", counted.first)
    file.write_text("{mark: 7}\n")
    assert shown(file.read_text(), "") == [sent(3, 7)]
    send(counted.first, 1)
    assert shown(file.read_text(), "") == [sent(4, 7)]
    percpu = counted.file("typed", "_percpu", counted.first)
    assert counted.mount.sh(f"echo '{{mark: 9}}' > '{percpu}'").code == 0  # on every CPU
    marks = [one["mark"] for one in json.loads(percpu.read_text())]
    assert marks == [9] * CPUS
    settings = counted.mount.path / "maps/typed_percpu/format"
    settings.write_text("percpu: sum\n")
    assert json.loads(percpu.read_text())["packets"] == 4
    settings.write_text("percpu: each\n")


@kinds
@both
def test_entries_are_neither_made_nor_removed(counted: Counted, kind: str, percpu: str) -> None:
    name = f"maps/{kind}{percpu}"
    first, second = (counted.name(kind, path) for path in (counted.first, counted.second))
    other = first.replace(str(os.stat(counted.first).st_ino), "1")
    for command, why in {
        f"rm {first}": "the kernel removes an entry when the cgroup",
        f"mv {first} {second}": "the kernel removes an entry when the cgroup",
        f"touch {other}": "the kernel makes an entry when a program is attached",
    }.items():
        result = counted.mount.sh(f"cd {name}/entries && {command}")
        assert result.stderr.endswith("Operation not permitted\n"), result
        assert why in counted.mount.error_log(name)
    absent = counted.mount.sh(f"cat {name}/entries/{other}")
    assert absent.stderr.endswith("No such file or directory\n")
    assert counted.mount.sh(f"cat {name}/count").stdout == "2\n"


@kinds
@both
def test_an_entry_goes_with_its_cgroup(counted: Counted, kind: str, percpu: str) -> None:
    """And not before, as it once did when the program was detached (Linux 5.9)."""
    with cgroup("storage") as path:
        pin = counted.mount.source / "programs" / f"count_{kind}"
        checked("bpftool", "cgroup", "attach", path, "egress", "pinned", pin, "multi")
        file = counted.file(kind, percpu, path)
        opened = file.open("rb", buffering=0)
        checked("bpftool", "cgroup", "detach", path, "egress", "pinned", pin)
        assert opened.read(1)
    with opened:

        def is_gone() -> bool:
            opened.seek(0)
            try:
                return not opened.read(1)
            except OSError as error:
                assert error.errno in (errno.ESTALE, errno.ENOENT)
                return True

        eventually("it is gone", is_gone)
    eventually("its name is, too", lambda: not file.exists(), 1)
    assert counted.mount.sh(f"cat maps/{kind}{percpu}/count").stdout == "2\n"
