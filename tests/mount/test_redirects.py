"""devmap, devmap_hash and cpumap: what packets are redirected to, with names of interfaces."""

from __future__ import annotations

import contextlib
import json
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.maps import dump, pin, u32
from support.mounting import COMMAND, Mount
from support.network import compile_program
from support.shell import checked, run
from support.users import nobody

from fusefs.bpf.bpffs import Directory
from fusefs.bpf.map import Map, MapType
from fusefs.bpf.program import Program

DEVMAPS = [MapType.DEVMAP, MapType.DEVMAP_HASH]
each_devmap = pytest.mark.parametrize("kind", DEVMAPS, ids=lambda kind: kind.name.lower())


@pytest.fixture(scope="module")
def interface() -> Iterator[tuple[str, int]]:
    """The name and index of an interface of one's own."""
    name = f"fusefs{os.getpid() % 10**7}"
    checked("ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}p")
    try:
        yield name, int(Path(f"/sys/class/net/{name}/ifindex").read_text())
    finally:
        run(["ip", "link", "delete", name])


def devmap(kind: MapType, value_size: int = 8) -> Map:
    return Map.create(kind, key_size=4, value_size=value_size, max_entries=8, name="devices")


def cpumap(value_size: int = 8) -> Map:
    return Map.create(MapType.CPUMAP, key_size=4, value_size=value_size, max_entries=2, name="cpus")


def in_it(made: Map) -> dict[int, tuple[int, ...]]:
    """The words of each value, by key."""
    return {
        int.from_bytes(key, "little"): struct.unpack(f"{len(value) // 4}I", value)
        for key, value in dump(made).items()
    }


@each_devmap
@pytest.mark.parametrize("size", [4, 8])
def test_interfaces_by_name_and_number(
    mounted: Mount, interface: tuple[str, int], kind: MapType, size: int
) -> None:
    made = mounted.pin("sample", devmap(kind, size))
    name, index = interface
    rest = (0,) if size == 8 else ()
    entry = {"ifindex": index, "interface": name} | ({"prog_id": 0} if rest else {})
    shown = json.dumps(entry) + "\n"
    ways = [name, str(index), f'{{"interface": "{name}"}}', f'{{"ifindex": {index}}}', shown]
    for number, text in enumerate(ways):
        assert mounted.sh(f"cat > sample/entries/{number}", given=text.encode()).code == 0, text
    assert in_it(made) == dict.fromkeys(range(len(ways)), (index, *rest))
    assert mounted.sh("cat sample/entries/[0-4]").stdout == shown * 5
    assert mounted.sh("ls sample/entries; cat sample/count").stdout.split() == [*"01234", "5"]
    lines = map(json.loads, mounted.sh("cat sample/entries.jsonl").stdout.splitlines())
    assert sorted(lines, key=lambda line: int(line["key"])) == [
        {"key": number, "value": entry} for number in range(5)
    ]
    assert mounted.sh("echo lo > sample/entries/3; cat sample/entries/3").stdout.startswith(
        '{"ifindex": 1, "interface": "lo"'
    )
    assert mounted.sh("cd sample/entries; cp 3 5; mv 5 6; rm 0 1 2 4; ls").stdout == "3\n6\n"
    assert in_it(made) == {3: (1, *rest), 6: (1, *rest)}
    assert mounted.error_log("sample") == ""


@each_devmap
def test_what_is_no_interface_is_refused(mounted: Mount, kind: MapType) -> None:
    made = mounted.pin("sample", devmap(kind))
    mounted.sh("echo lo > sample/entries/1")
    for text, reason in {
        "nosuch0": "interface: there is no interface 'nosuch0'",
        "lo\0": "interface: there is no interface 'lo\\x00'",
        "0": "0 would remove the entry",
        "{}": "",
        '{"interface": "lo", "ifindex": 2}': "share their bytes, and are given different ones",
        '{"ifindex": 1, "prog_id": 4294967295}': "there is no program with the id 4294967295",
        '{"flags": 1}': "has no field 'flags'",
        "[1]": "expected an object",
    }.items():
        result = mounted.sh("cat > sample/entries/2", given=f"{text}\n".encode())
        assert result.code == 1, text
        assert "Invalid argument" in result.stderr
        assert reason in mounted.error_log("sample")
    assert mounted.sh("echo 4000000 > sample/entries/2").code == 1
    assert "there is no such interface" in mounted.error_log("sample")
    assert in_it(made) == {1: (1, 0)}


@each_devmap
def test_an_entry_that_is_there_is_not_made_anew(mounted: Mount, kind: MapType) -> None:
    made = mounted.pin("sample", devmap(kind))
    assert mounted.sh("set -C; echo lo > sample/entries/1").code == 0
    with (mounted.path / "sample/entries/2").open("x") as file:
        made.update(u32(2), struct.pack("II", 1, 0))
        with pytest.raises(FileExistsError):
            os.write(file.fileno(), b"lo\n")
    with (mounted.path / "sample/entries/1").open("r+") as file:
        made.delete(u32(1))
        with pytest.raises(FileNotFoundError):
            os.write(file.fileno(), b"lo\n")
    assert in_it(made) == {2: (1, 0)}


def test_an_interface_that_goes_takes_its_entry_with_it(mounted: Mount) -> None:
    made = mounted.pin("sample", devmap(MapType.DEVMAP))
    name = f"fusefsx{os.getpid() % 10**6}"
    checked("ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}p")
    try:
        assert mounted.sh(f"echo {name} > sample/entries/1; ls sample/entries").stdout == "1\n"
    finally:
        checked("ip", "link", "delete", name)
    assert mounted.sh("cat sample/entries/1").stderr.endswith("No such file or directory\n")
    assert mounted.sh("ls sample/entries").stdout == ""
    assert in_it(made) == {}


def test_an_interface_of_another_network_has_a_number_alone(mounter: Callable[..., Mount]) -> None:
    namespace = f"fusefs-{os.getpid()}-d"
    checked("ip", "netns", "add", namespace)
    try:
        inside = ["nsenter", f"--net=/run/netns/{namespace}"]
        mount = mounter(command=[*inside, *COMMAND])
        pair = ("type", "veth", "peer", "name", "other")
        checked(*inside, "ip", "link", "add", "only-here", "index", "4242", *pair)
        with devmap(MapType.DEVMAP_HASH) as made:
            mount.pin("sample", made)
            made.update(u32(1), struct.pack("II", 1, 0))  # `lo` of our own network
            assert mount.sh("echo only-here > sample/entries/2").code == 0
            assert '"ifindex": 4242, "interface": "only-here"' in mount.sh("cat */entries/2").stdout
            # What is read can be written back, whatever it is.
            assert mount.sh("cd sample/entries; v=$(cat 1); echo $v > 1").code == 0
    finally:
        run(["ip", "netns", "delete", namespace])


@pytest.mark.parametrize("size", [4, 8])
def test_cpus_have_queues(mounted: Mount, size: int) -> None:
    made = mounted.pin("sample", cpumap(size))
    rest = (0,) if size == 8 else ()
    assert (
        mounted.sh("echo 192 > sample/entries/0; echo '{\"qsize\": 8}' > sample/entries/1").code
        == 0
    )
    assert in_it(made) == {0: (192, *rest), 1: (8, *rest)}
    shown = '{"qsize": 192, "prog_id": 0}' if rest else '{"qsize": 192}'
    assert mounted.sh("cat sample/entries/0; ls sample/entries").stdout == f"{shown}\n0\n1\n"
    assert mounted.sh("rm sample/entries/0; ls sample/entries; cat sample/count").stdout == "1\n1\n"
    assert mounted.sh("echo 0 > sample/entries/1").code == 1
    assert "0 would remove the entry" in mounted.error_log("sample")
    assert mounted.sh("echo 99999999 > sample/entries/1").code == 1
    assert "qsize is 16384 at most" in mounted.error_log("sample")
    assert mounted.sh("echo 5 > sample/entries/2").stderr.endswith("Invalid argument\n")
    assert in_it(made) == {1: (8, *rest)}


# Programs that run on what was redirected.


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_program("redirect", tmp_path_factory.mktemp("programs"))


@pytest.fixture
def programs(mounted: Mount, compiled: Path) -> Iterator[dict[str, Program]]:
    """The programs of redirect.bpf.c, by name."""
    path = mounted.source / "programs"
    os.mkdir(path)
    checked("bpftool", "prog", "loadall", compiled, path)
    directory = Directory(str(path))
    with contextlib.ExitStack() as stack:
        opened = {}
        for listed in directory.list():
            obj = directory.open_pin(listed.name, directory.stat(listed.name).st_ino)
            assert isinstance(obj, Program)
            opened[listed.name] = stack.enter_context(obj)
        yield opened


@pytest.mark.parametrize(
    ("kind", "name", "target"),
    [
        (MapType.DEVMAP, "on_device", '"interface": "lo"'),
        (MapType.DEVMAP_HASH, "on_device", '"interface": "lo"'),
        (MapType.CPUMAP, "on_cpu", '"qsize": 64'),
    ],
)
def test_a_program_by_its_id(
    mounted: Mount, programs: dict[str, Program], kind: MapType, name: str, target: str
) -> None:
    made = mounted.pin("sample", cpumap() if kind == MapType.CPUMAP else devmap(kind))
    fits, other = programs[name].info.id, programs["plain"].info.id
    first = 64 if kind == MapType.CPUMAP else 1
    text = f'{{{target}, "prog_id": {fits}}}\n'
    assert mounted.sh("cat > sample/entries/1", given=text.encode()).code == 0
    assert in_it(made) == {1: (first, fits)}
    assert f'"prog_id": {fits}}}' in mounted.sh("cat sample/entries/1").stdout
    assert mounted.sh("cd sample/entries; v=$(cat 1); echo $v > 1; cp 1 0").code == 0
    assert in_it(made) == {0: (first, fits), 1: (first, fits)}
    refused = mounted.sh(f"echo '{{\"prog_id\": {other}}}' > sample/entries/1")
    assert refused.stderr.endswith("Invalid argument\n")
    assert "prog_id is not an XDP program made for" in mounted.error_log("sample")
    assert mounted.sh("echo '{\"prog_id\": 0}' > sample/entries/1").code == 0
    assert in_it(made) == {0: (first, fits), 1: (first, 0)}
    assert mounted.sh("mv sample/entries/0 sample/entries/1").code == 0
    assert in_it(made) == {1: (first, fits)}


def test_only_root_names_a_program_by_its_id(mounter: Callable[..., Mount], compiled: Path) -> None:
    mount = mounter("-o", "allow_other")
    mount.sh("chmod 755 .")
    path = mount.source / "programs"
    os.mkdir(path)
    checked("bpftool", "prog", "loadall", compiled, path)
    directory = Directory(str(path))
    program = directory.open_pin("on_device", directory.stat("on_device").st_ino)
    with devmap(MapType.DEVMAP) as made, program:
        pin(mount.source / "sample", made)
        os.chmod(mount.source / "sample", 0o666)
        text = f'{{"ifindex": 1, "prog_id": {program.info.id}}}'
        assert nobody(mount, "echo lo > sample/entries/1").code == 0
        result = nobody(mount, f"echo '{text}' > sample/entries/1")
        assert result.stderr.endswith("Operation not permitted\n")
        assert "only root can name a program by its id" in mount.error_log("sample")
        assert in_it(made) == {1: (1, 0)}
