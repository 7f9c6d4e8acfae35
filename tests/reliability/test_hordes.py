"""Any number of directories and names, as deep as one likes: the mount goes on for all others."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.maps import make_map, pin, u32, u64
from support.mounting import COMMAND, Mount
from support.soaking import Figure

from fusefs.bpf import libc
from fusefs.bpf.bpffs import Directory
from fusefs.tree.context import Context
from fusefs.tree.mirror import Mirror

_DESCRIPTORS = 200


@pytest.fixture
def small(mounter: Callable[..., Mount]) -> Mount:
    """A mount with few descriptors."""
    return mounter(command=["prlimit", f"--nofile={_DESCRIPTORS}", *COMMAND])


def _open_files(mount: Mount) -> int:
    return len(os.listdir(f"/proc/{mount.process.pid}/fd"))


def test_more_directories_than_descriptors(small: Mount) -> None:
    """The kernel refers to all of them, once they were seen."""
    count = 2 * _DESCRIPTORS
    with make_map() as made:
        made.update(u32(1), u64(5))
        for number in range(count):
            (small.source / f"d{number}/below").mkdir(parents=True)
            if number % 100 == 0:
                pin(small.source / f"d{number}/below/pin", made)
    held = os.open(small.path / "d0/below", os.O_PATH)
    try:
        for _ in range(2):
            for number in range(count):
                assert os.stat(small.path / f"d{number}/below").st_nlink == 2
                assert _open_files(small) < _DESCRIPTORS
            for number in range(0, count, 100):
                pinned = small.path / f"d{number}/below/pin"
                assert (pinned / "entries/1").read_text() == "5\n"
        # Who stands somewhere is still there.
        assert os.stat("pin/entries/1", dir_fd=held).st_size == 2
        os.mkdir("new", dir_fd=held)
        assert (small.source / "d0/below/new").is_dir()
        # One that was moved meanwhile is found where it is now, and no other in its place.
        (small.source / "d100").rename(small.source / "moved")
        (small.source / "d100/below").mkdir(parents=True)
        assert os.listdir(small.path / "moved/below") == ["pin"]
        assert os.listdir(small.path / "d100/below") == []
    finally:
        os.close(held)


def test_directories_deeper_than_any_path(mounted: Mount, figure: Figure) -> None:
    levels = 2100
    top = fd = os.open(mounted.source, os.O_PATH)
    made = []
    for _ in range(levels):
        os.mkdir("d", dir_fd=fd)
        made.append(fd)
        fd = os.open("d", os.O_PATH, dir_fd=fd)
    seen = os.open(mounted.path, os.O_PATH)
    try:
        with make_map() as sample:
            pin(Path(f"/proc/self/fd/{made[2000]}/pin"), sample)
        depth = 0
        while "d" in os.listdir(f"/proc/self/fd/{seen}"):
            below = os.open("d", os.O_PATH, dir_fd=seen)
            os.close(seen)
            seen = below
            depth += 1
            if depth == 2000:
                assert os.stat("pin/info", dir_fd=seen).st_size
        # Deeper ones are there, and nothing is seen in them.
        assert 2000 < depth < levels
        os.unlink("pin", dir_fd=made[2000])
    finally:
        os.close(seen)
        for parent in reversed(made):
            os.close(fd)
            os.rmdir("d", dir_fd=parent)
            fd = parent
        os.close(top)


@pytest.fixture
def lookups(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names that are looked up."""
    names: list[str] = []
    real = libc.openat2

    def openat2(fd: int, path: str, flags: int, resolve: int) -> int:
        names.append(path)
        return real(fd, path, flags, resolve)

    monkeypatch.setattr(libc, "openat2", openat2)
    yield names


def test_others_have_turns_while_many_names_are_listed(bpffs: Path, lookups: list[str]) -> None:
    for number in range(100):
        (bpffs / f"link{number}").symlink_to("nowhere")
    top = Directory(str(bpffs))
    mirror = Mirror(top, Context(top, "/nowhere"))
    children = mirror.children()
    next(children)
    assert len(lookups) < 4
    lookups.clear()
    with pytest.raises(FileNotFoundError):
        mirror.lookup("name.with.dot")
    assert len(lookups) < 4
