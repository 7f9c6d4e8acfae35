"""Local storages: entries whose keys are threads and cgroups."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.cgroups import cgroup
from support.mounting import Mount
from support.network import compile_program
from support.running import repeating, run_raw
from support.shell import checked
from support.storages import THINGS, Thread, crowd, process, put, refused, storage, thread, value_of
from support.users import DENIED, nobody
from support.waiting import eventually

from fusefs.bpf.bpffs import Directory
from fusefs.bpf.map import Map, MapType
from fusefs.bpf.program import Program

ABSENT = "No such file or directory\n"
each_kind = pytest.mark.parametrize("kind", THINGS, ids=lambda kind: kind.name.lower())


# Threads


@pytest.fixture
def tasks(mounted: Mount) -> Iterator[Map]:
    """A task storage, pinned as `sample`."""
    with storage(MapType.TASK_STORAGE) as made:
        yield mounted.pin("sample", made)


def test_threads_are_listed_read_and_set(mounted: Mount, tasks: Map) -> None:
    with thread() as one, thread() as other, process(["sleep", "60"]) as alone:
        put(tasks, str(one.id), 101)
        put(tasks, str(alone.pid), 102)
        names = {str(one.id), str(alone.pid)}
        assert set(mounted.sh("ls sample/entries").stdout.split()) == names
        result = mounted.sh(f"cd sample/entries; cat {one.id} {alone.pid}; stat -c %s * ; wc -c *")
        assert result.stdout.startswith("101\n102\n4\n4\n"), result
        assert mounted.sh("cat sample/count").stdout == "2\n"
        for command in ("echo 7 > ID", "printf 7 > ID", "echo 5 > ID; echo 0x7 >> ID"):
            for thing in (one.id, other.id, os.getpid()):
                result = mounted.sh(f"cd sample/entries; {command.replace('ID', str(thing))}")
                assert (result.code, result.stderr) == (0, ""), result
                assert value_of(tasks, str(thing)) == 7
            assert mounted.sh(f"rm sample/entries/{other.id}").code == 0
            assert value_of(tasks, str(other.id)) is None
        names.add(str(os.getpid()))
        assert set(os.listdir(mounted.path / "sample/entries")) == names
        lines = (mounted.path / "sample/entries.jsonl").read_text().splitlines()
        told = {entry["key"]: entry["value"] for entry in map(json.loads, lines)}
        assert told == {one.id: 7, os.getpid(): 7, alone.pid: 102}
        jq = f"jq -c 'select(.key == {one.id}) | .value' sample/entries.jsonl"
        assert mounted.sh(jq).stdout == "7\n"
        assert os.getxattr(mounted.path / f"sample/entries/{one.id}", "user.bpf.key") == (
            str(one.id).encode()
        )
    assert mounted.error_log("sample") == ""


def test_threads_copied_moved_touched_and_removed(mounted: Mount, tasks: Map) -> None:
    with thread() as one, thread() as two, thread() as three:
        put(tasks, str(one.id), 5)
        result = mounted.sh(
            f"cd sample/entries; cp {one.id} {two.id}; mv {two.id} {three.id}; touch {one.id};"
            f" touch {two.id}; mv {one.id} {three.id}; ls"
        )
        assert (result.code, result.stdout) == (0, f"{three.id}\n"), result
        assert mounted.sh(f"rm sample/entries/{one.id}").stderr.endswith(ABSENT)
        assert value_of(tasks, str(three.id)) == 5
        put(tasks, str(one.id), 6)
        refused(mounted, f"mv {one.id} name", "Operation not permitted\n", "the id of a thread")
        refused(mounted, f"mv {one.id} {1 << 22}", ABSENT, "there is no thread")
        assert value_of(tasks, str(one.id)) == 6


def test_exclusive_creation(mounted: Mount, tasks: Map) -> None:
    with thread() as one:
        file = mounted.path / "sample/entries" / str(one.id)
        with file.open("x") as opened:
            put(tasks, str(one.id), 1)  # somebody else was faster
            with pytest.raises(FileExistsError):
                os.write(opened.fileno(), b"2\n")
        with file.open("r+b", buffering=0) as opened_again:
            file.unlink()
            with pytest.raises(FileNotFoundError):  # what was removed does not come back
                opened_again.write(b"8\n")
        assert value_of(tasks, str(one.id)) is None


def test_names_that_are_no_threads(mounted: Mount, tasks: Map) -> None:
    for name in ("abc", "0", "-1", "01", "0x1", "1.5", "12345678901", "x" * 255):
        assert mounted.sh(f"cat sample/entries/{name}").stderr.endswith(ABSENT)
        refused(mounted, f"echo 1 > {name}", "Invalid argument\n", "expected the id of a thread")
    refused(mounted, f"echo 1 > {1 << 22}", ABSENT, "there is no thread")
    assert os.listdir(mounted.path / "sample/entries") == []


def test_a_thread_that_ends_while_its_file_is_open(mounted: Mount, tasks: Map) -> None:
    one = Thread()
    put(tasks, str(one.id), 5)
    file = mounted.path / "sample/entries" / str(one.id)
    with file.open("r+b", buffering=0) as opened:
        assert opened.read() == b"5\n"
        one.end()
        opened.seek(0)
        with pytest.raises(OSError) as error:
            opened.read()
        assert error.value.errno in (errno.ESTALE, errno.ENOENT)
        with pytest.raises(OSError) as error:
            opened.write(b"6\n")
        assert error.value.errno in (errno.ESTALE, errno.ENOENT)
        assert os.fstat(opened.fileno()).st_size == 2
    eventually("its name is gone", lambda: not file.exists(), 1)
    assert mounted.sh("cat sample/count; ls sample/entries").stdout == "0\n"


def test_threads_that_come_and_go_during_a_listing(mounted: Mount, tasks: Map) -> None:
    with thread() as one:
        put(tasks, str(one.id), 5)

        def churn() -> None:
            other = Thread()
            put(tasks, str(other.id), 6)
            other.end()

        with repeating(churn):
            for _ in range(30):
                assert str(one.id) in os.listdir(mounted.path / "sample/entries")
                lines = (mounted.path / "sample/entries.jsonl").read_text().splitlines()
                assert {"key": one.id, "value": 5} in map(json.loads, lines)


def test_what_a_program_keeps(mounted: Mount, tmp_path: Path) -> None:
    """With the type that it has there: of its thread, and of the cgroup that this is in."""
    maps = mounted.source / "maps"
    maps.mkdir()
    compiled = compile_program("storages", tmp_path)
    checked("bpftool", "prog", "load", compiled, mounted.source / "touch", "pinmaps", maps)
    directory = Directory(str(mounted.source))
    program = directory.open_pin("touch", directory.stat("touch").st_ino)
    assert isinstance(program, Program)
    entries = {name: mounted.path / "maps" / name / "entries" for name in ("tasks", "cgroups")}
    assert os.listdir(entries["tasks"]) == []
    file = entries["tasks"] / str(os.getpid())
    with program:
        run_raw(program)
        run_raw(program)
        assert json.loads(file.read_text()) == {"count": 2, "limit": 0, "label": ""}
        file.write_text('{limit: 9, label: "a thread"}\n')
        run_raw(program)
    assert json.loads(file.read_text()) == {"count": 3, "limit": 9, "label": "a thread"}
    assert os.listdir(entries["tasks"]) == [str(os.getpid())]
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    own = next(line.removeprefix("0::") for line in lines if line.startswith("0::"))
    told = json.loads((mounted.path / "maps/cgroups/entries.jsonl").read_text())
    assert (told["key"], told["value"]["count"]) == (own, 3)


@each_kind
def test_format_is_of_the_value_alone(mounted: Mount, kind: MapType) -> None:
    mounted.pin("sample", storage(kind)).close()
    assert mounted.sh("cat sample/format").stdout == "value: auto\n"
    assert mounted.sh("echo 'value: hex' > sample/format; cat sample/format").stdout == (
        "value: hex\n"
    )
    result = mounted.sh("echo 'key: hex' > sample/format")
    assert result.stderr.endswith("Invalid argument\n")
    assert "whose name has no format" in mounted.error_log("sample")
    assert mounted.sh("printf 'key: auto\\nvalue: auto\\n' > sample/format").code == 0
    if kind == MapType.TASK_STORAGE:
        result = mounted.sh(
            "cd sample; echo 'value: hex' > format; echo 255 > entries/$$; cat entries/$$"
        )
        assert result.stdout == '"0xff"\n'
        mounted.sh("echo 'value: auto' > sample/format")


def test_a_frozen_storage(mounted: Mount, tasks: Map) -> None:
    put(tasks, str(os.getpid()), 5)
    if mounted.sh("echo 1 > sample/frozen").code:
        pytest.skip("this kernel freezes none")
    for command in (f"echo 1 > {os.getpid()}", "echo 1 > $$", f"rm {os.getpid()}"):
        refused(mounted, command, "Operation not permitted\n", "frozen")
    assert mounted.sh(f"cat sample/entries/{os.getpid()}").stdout == "5\n"


def test_others_are_served_during_a_listing_of_many_threads(mounted: Mount, tasks: Map) -> None:
    sample = mounted.pin("other", storage(MapType.TASK_STORAGE))
    put(sample, str(os.getpid()), 1)
    with crowd(5000) as many:
        for name in os.listdir(f"/proc/{many.pid}/task"):
            put(tasks, name, 7)
        listings = "for i in 1 2 3; do ls -f sample/entries | wc -l; cat sample/count; done"
        with subprocess.Popen(
            ["bash", "-c", listings], cwd=mounted.path, stdout=subprocess.PIPE, text=True
        ) as listing:
            slowest, number = 0.0, 0
            while listing.poll() is None:
                began = time.monotonic()
                assert (mounted.path / f"other/entries/{os.getpid()}").read_text() == "1\n"
                slowest, number = max(slowest, time.monotonic() - began), number + 1
            assert listing.stdout
            assert listing.stdout.read().split() == ["5002", "5000"] * 3
        assert number > 10
        assert slowest < 0.25
    sample.close()


# cgroups


@pytest.fixture
def groups(mounted: Mount) -> Iterator[Map]:
    """A storage of cgroups, pinned as `sample`; what was put to the root is removed."""
    with storage(MapType.CGRP_STORAGE) as made:
        yield mounted.pin("sample", made)


def test_cgroups_are_listed_read_and_set(mounted: Mount, groups: Map) -> None:
    with cgroup() as path:
        below = path / "a b.service"
        below.mkdir()
        try:
            put(groups, f"/{path.name}/a b.service", 5)
            name = f"{path.name}%2Fa b.service"
            assert os.listdir(mounted.path / "sample/entries") == [name]
            file = mounted.path / "sample/entries" / name
            assert file.read_text() == "5\n"
            file.write_text("6\n")
            assert value_of(groups, f"/{path.name}/a b.service") == 6
            result = mounted.sh(f"cd sample/entries; echo 7 > {path.name}; echo 8 > %2F; cp %2F x")
            assert result.stderr.endswith(ABSENT)  # there is no cgroup x
            lines = (mounted.path / "sample/entries.jsonl").read_text().splitlines()
            told = {entry["key"]: entry["value"] for entry in map(json.loads, lines)}
            assert told == {"/": 8, f"/{path.name}": 7, f"/{path.name}/a b.service": 6}
            assert mounted.sh("cat sample/count").stdout == "3\n"
            assert os.getxattr(file, "user.bpf.key").decode() == f'"/{path.name}/a b.service"'
            spelled = file.with_name(name.replace("%2F", "%2f"))
            assert os.stat(spelled).st_ino == os.stat(file).st_ino
            result = mounted.sh(f"cd sample/entries; mv '{name}' %2F; rm {path.name}; ls; cat *")
            assert result.stdout == "%2F\n6\n", result
        finally:
            below.rmdir()


def test_a_cgroup_that_is_removed(mounted: Mount, groups: Map) -> None:
    with cgroup() as path:
        below = path / "below"
        below.mkdir()
        put(groups, f"/{path.name}/below", 5)
        file = mounted.path / "sample/entries" / f"{path.name}%2Fbelow"
        with file.open("rb", buffering=0) as opened:
            assert opened.read() == b"5\n"
            below.rmdir()  # the mount holds nothing of it
            opened.seek(0)
            with pytest.raises(OSError) as error:
                opened.read()
            assert error.value.errno in (errno.ESTALE, errno.ENOENT)
            below.mkdir()
            put(groups, f"/{path.name}/below", 6)  # another one, whatever its name
            with pytest.raises(OSError):
                opened.seek(0), opened.read()
            assert file.read_text() == "6\n"
            below.rmdir()
    assert os.listdir(file.parent) == []


def test_a_cgroup_with_a_long_path(mounted: Mount, groups: Map) -> None:
    with cgroup() as path:
        deep = [path]
        for letter in "abc":
            deep.append(deep[-1] / (letter * 100))
            deep[-1].mkdir()
        try:
            key = "/" + str(deep[-1].relative_to(path.parent))
            put(groups, key, 5)
            (name,) = os.listdir(mounted.path / "sample/entries")
            assert "%#" in name and len(name) <= 255
            file = mounted.path / "sample/entries" / name
            assert file.read_text() == "5\n"
            assert json.loads(os.getxattr(file, "user.bpf.key")) == key
            mounted.pin("again", groups)
            (mounted.path / "again/entries" / name).write_text("6\n")  # that has not listed it
            assert value_of(groups, key) == 6
        finally:
            for one in reversed(deep[1:]):
                one.rmdir()


def test_names_that_are_no_cgroups(mounted: Mount, groups: Map) -> None:
    for name in ("..", "a%2F..", "a%2F%2Fb", "a%2F", "%2F%2F", "a%00b"):
        assert mounted.sh(f"cat sample/entries/{name}").code == 1
        if name != "..":
            refused(mounted, f"echo 1 > {name}", "Invalid argument\n", "the path of a cgroup")
    for name in ("nowhere", "nowhere%2Fdeep"):
        refused(mounted, f"echo 1 > {name}", ABSENT)
    assert mounted.sh("echo 1 > sample/entries/cgroup.procs").stderr.endswith("Not a directory\n")


def test_cgroups_that_a_user_cannot_reach(mounter: Callable[..., Mount]) -> None:
    mount = mounter("-o", "allow_other")
    mount.sh("chmod 755 .")
    with storage(MapType.CGRP_STORAGE) as sample, cgroup() as path:
        mount.pin("sample", sample)
        os.chmod(mount.source / "sample", 0o666)
        below = path / "below"
        below.mkdir()
        try:
            put(sample, f"/{path.name}", 5)
            put(sample, f"/{path.name}/below", 6)
            name = f"{path.name}%2Fbelow"
            path.chmod(0o700)
            assert os.listdir(mount.path / "sample/entries") == [path.name]
            assert mount.sh(f"cat sample/entries/{name}").stdout == "6\n"
            # What root has just looked up is not for others.
            for command in ("cat FILE", "stat FILE", "echo 1 > FILE", "rm -f FILE", "mv FILE %2F"):
                result = nobody(mount, f"cd sample/entries; {command.replace('FILE', name)}")
                assert result.stderr.endswith(DENIED), result
            assert nobody(mount, f"cd sample/entries; cat {path.name}").stdout == "5\n"
            assert nobody(mount, f"cd sample/entries; echo 7 > {path.name}").code == 0
            assert value_of(sample, f"/{path.name}/below") == 6
            path.chmod(0o750)
            os.chown(path, 0, 4321)
            assert nobody(mount, f"cat sample/entries/{name}", "--groups=4321").stdout == "6\n"
        finally:
            below.rmdir()


def test_threads_are_for_all_who_may_use_the_map(mounter: Callable[..., Mount]) -> None:
    mount = mounter("-o", "allow_other")
    mount.sh("chmod 755 .")
    with storage(MapType.TASK_STORAGE) as sample:
        mount.pin("sample", sample)
        os.chmod(mount.source / "sample", 0o644)
        put(sample, str(os.getpid()), 5)
        assert nobody(mount, f"cat sample/entries/{os.getpid()}").stdout == "5\n"
        assert nobody(mount, f"echo 1 > sample/entries/{os.getpid()}").stderr.endswith(DENIED)
