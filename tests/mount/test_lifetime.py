"""The mount keeps nothing alive, and does nothing when nobody asks."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.maps import exists, make_map, u32, u64
from support.mounting import Mount
from support.waiting import eventually

from fusefs.bpf.map import Map, MapType

Mounter = Callable[..., Mount]


def descriptors(mount: Mount) -> list[str]:
    """What the process has open."""
    directory = Path(f"/proc/{mount.process.pid}/fd")
    opened = []
    for name in os.listdir(directory):
        with contextlib.suppress(FileNotFoundError):  # it has been closed by now
            opened.append(os.readlink(directory / name))
    return opened


def pinned(mounted: Mount, name: str = "sample") -> int:
    """Pin a map with an entry, and keep no other descriptor of it; its id."""
    with make_map() as made:
        made.update(u32(1), u64(101))
        mounted.pin(name, made)
        return int(made.info.id)


def use(mounted: Mount, name: str = "sample") -> None:
    """Do all sorts of things with a map."""
    result = mounted.sh(
        f"cd {name} && ls -laR . && cat info entries/* entries.jsonl count && echo 5 > entries/2"
        " && mv entries/2 entries/3 && rm entries/3 && find . && grep -r x . ; stat *"
    )
    assert result.code == 0, result
    mounted.sh(f"echo x > {name}/entries/1")


@pytest.mark.parametrize("how", ["rm in bpffs", "rmdir on the mount"])
def test_the_object_goes_with_its_last_pin(mounted: Mount, how: str) -> None:
    number = pinned(mounted)
    use(mounted)
    assert exists(Map, number)
    if how == "rm in bpffs":
        os.unlink(mounted.source / "sample")
    else:
        os.rmdir(mounted.path / "sample")
    eventually("the object is gone", lambda: not exists(Map, number), 1)
    eventually("the name is gone", lambda: not (mounted.path / "sample").exists())


def test_the_object_goes_after_its_last_open_file(mounted: Mount) -> None:
    number = pinned(mounted)
    with (mounted.path / "sample/entries.jsonl").open("rb", buffering=0) as file:
        os.unlink(mounted.source / "sample")
        assert file.read(1000) == b'{"key": 1, "value": 101}\n'
        assert exists(Map, number)
    eventually("the object is gone", lambda: not exists(Map, number), 1)
    eventually("the name is gone", lambda: not (mounted.path / "sample").exists())


def test_no_object_is_kept_open(mounted: Mount) -> None:
    pinned(mounted)
    use(mounted)

    def opened() -> list[str]:
        return [name for name in descriptors(mounted) if name.startswith("anon_inode:bpf")]

    eventually("no object is open", lambda: not opened())
    with (mounted.path / "sample/entries/1").open():
        eventually("only the file's is", lambda: opened() == ["anon_inode:bpf-map"])
    eventually("no object is open", lambda: not opened())


def test_the_number_of_descriptors_is_bounded(mounted: Mount) -> None:
    pinned(mounted)
    os.mkdir(mounted.source / "directory")
    pinned(mounted, "directory/other")

    def turn() -> None:
        for name in ("sample", "directory/other"):
            (mounted.path / name / "entries/1").read_text()
            (mounted.path / name / "entries/1").write_text("5\n")
            os.listdir(mounted.path / name / "entries")
            (mounted.path / name / "entries.jsonl").read_text()
        with pytest.raises(FileNotFoundError):
            (mounted.path / "sample/entries/2").read_text()
        with pytest.raises(OSError):
            (mounted.path / "sample/entries/1").write_text("x\n")

    turn()
    before = len(descriptors(mounted))
    for _ in range(100):
        turn()
    eventually("descriptors are given back", lambda: len(descriptors(mounted)) <= before)


def test_directories_that_are_gone_are_given_back(mounted: Mount) -> None:
    before = len(descriptors(mounted))
    for number in range(50):
        os.mkdir(mounted.path / f"directory{number}")
        os.listdir(mounted.path / f"directory{number}")
        os.rmdir(mounted.path / f"directory{number}")
    eventually("descriptors are given back", lambda: len(descriptors(mounted)) <= before + 1)


def switches(process: int) -> list[str]:
    """How often each thread has been given a processor."""
    threads = Path(f"/proc/{process}/task").iterdir()
    lines = [
        line
        for thread in threads
        for line in (thread / "status").read_text().splitlines()
        if "voluntary_ctxt_switches" in line
    ]
    assert lines
    return lines


def test_an_idle_mount_does_nothing(mounter: Mounter) -> None:
    mount = mounter()
    pinned(mount)
    use(mount)
    last = switches(mount.process.pid)

    def settled() -> bool:
        nonlocal last
        before, last = last, switches(mount.process.pid)
        return before == last

    time.sleep(0.1)
    eventually("it has come to rest", settled)
    time.sleep(2)  # nothing must happen, so there is nothing to wait for
    assert switches(mount.process.pid) == last
    os.unlink(mount.source / "sample")  # nor when something happens in bpffs that nobody asks for
    assert mount.sh("ls").code == 0


def test_what_was_committed_survives_a_crash(bpffs: Path, mounter: Mounter) -> None:
    mount = mounter()
    sample = mount.pin("sample", make_map(MapType.HASH))
    assert mount.sh("echo 5 > sample/entries/1; rm -f sample/entries/2").code == 0
    again = mounter()
    assert again.sh("cat sample/entries/1").stdout == "5\n"
    assert sample.lookup(u32(1)) == u64(5)


def test_directories_go_although_many_inodes_were_listed(mounted: Mount) -> None:
    # The search for garbage leaves out what is there when there are many inodes.
    large = mounted.pin("large", make_map(max_entries=20_000))
    for number in range(12_000):
        large.update(u32(number), u64(number))
    with make_map() as made:
        for turn in range(4):
            for number in range(20):
                (mounted.source / f"directory{number}").mkdir()
                mounted.pin(f"directory{number}/pin", made)
            assert (
                mounted.sh("ls -l directory*/pin/entries; ls -l large/entries | tail -1").code == 0
            )
            for number in range(20):
                (mounted.source / f"directory{number}/pin").unlink()
                (mounted.source / f"directory{number}").rmdir()
            assert mounted.sh("ls directory0").code != 0, turn
            Path("/proc/sys/vm/drop_caches").write_text("2\n")
    eventually("most descriptors are closed", lambda: len(descriptors(mounted)) < 60)
