"""Every kind of node renamed to, linked to and exchanged with every other: done, or refused with an
errno that fits, and then nothing is lost."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from pathlib import Path

import pytest
from support.maps import dump, make_map, u32, u64
from support.mounting import Mount
from support.renaming import rename

from fusefs.bpf.bpffs import RenameFlags
from fusefs.bpf.map import Map, MapType

# What there is of each kind, below the mount.
KINDS = {
    "root": ".",
    "by id": ".by-id",
    "directory": "directory",
    "full directory": "full",
    "link": "link",
    "pin": "one",
    "file": "one/info",
    "written file": "one/format",
    "entries": "one/entries",
    "entry": "one/entries/1",
    "another's entry": "other/entries/1",
    "scratch": "one/entries/.scratch",
    "scratch beside": "one/.scratch",
    "slot": "slots/entries/1",
    "nothing": "nothing",
    "no entry": "one/entries/9",
    "no key": "one/entries/none",
}
FLAGS = [RenameFlags(number) for number in (0, 1, 2, 4)]  # the last is RENAME_WHITEOUT
ANSWERS = {
    errno.EPERM, errno.EXDEV, errno.EBUSY, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST,
    errno.EINVAL, errno.ENOTEMPTY, errno.EACCES,
}  # fmt: skip


def make(mount: Mount) -> list[Map]:
    """All of them."""
    maps = [mount.pin(name, make_map(name=name)) for name in ("one", "other")]
    for number, made in enumerate(maps):
        made.update(u32(1), u64(500 + number))
    slots = Map.create(MapType.HASH_OF_MAPS, key_size=4, value_size=4, max_entries=4, inner=maps[0])
    slots.update(u32(1), u32(maps[0].fd))
    mount.pin("slots", slots)
    for name in ("directory", "full/inner"):
        (mount.source / name).mkdir(parents=True)
    (mount.source / "link").symlink_to("directory")
    for name in ("one/entries/.scratch", "one/.scratch"):
        (mount.path / name).write_bytes(b"7\n")
    return [*maps, slots]


def state(mount: Mount, maps: list[Map]) -> object:
    """All that there is now: names, what the maps hold, and the scratch files."""
    tree = sorted((str(path), path.is_symlink()) for path in mount.source.rglob("*"))
    there = [os.path.lexists(mount.path / path) for path in KINDS.values()]
    return tree, there, [dump(made) for made in maps]


@pytest.mark.parametrize("flags", FLAGS, ids=lambda flags: f"flags {int(flags)}")
def test_each_with_each(mounted: Mount, flags: RenameFlags) -> None:
    maps = make(mounted)
    refused = done = 0
    for old, new in itertools.product(KINDS.values(), repeat=2):
        before = state(mounted, maps)
        try:
            rename(mounted.path / old, mounted.path / new, flags)
        except OSError as error:
            assert error.errno in ANSWERS, (old, new, error)
            assert state(mounted, maps) == before, (old, new, error)
            refused += 1
            continue
        done += 1
        with contextlib.suppress(OSError):
            rename(mounted.path / new, mounted.path / old, flags)
        if state(mounted, maps) != before:
            mounted.sh("rm -f one/entries/.scratch one/.scratch")
            clear(mounted, maps)
            maps = make(mounted)
    assert refused > 150 and done


def clear(mount: Mount, maps: list[Map]) -> None:
    """Remove them, under whatever names."""
    for made in maps:
        made.close()
    for path in sorted(mount.source.rglob("*"), reverse=True):
        shown = mount.path / path.relative_to(mount.source)
        if path.name.endswith(".debug"):
            continue
        shown.unlink() if path.is_symlink() else shown.rmdir()


@pytest.mark.parametrize("symbolic", [False, True], ids=["link", "symlink"])
def test_each_linked_to_each(mounted: Mount, symbolic: bool) -> None:
    maps = make(mounted)
    for old, new in itertools.product(KINDS.values(), repeat=2):
        before = state(mounted, maps)
        target = mounted.path / new
        try:
            if symbolic:
                os.symlink(mounted.path / old, target)
                target.unlink()
            else:
                os.link(mounted.path / old, target, follow_symlinks=False)
        except OSError as error:
            assert error.errno in ANSWERS, (old, new, error)
        assert state(mounted, maps) == before, (old, new)
    clear(mounted, maps)


def test_a_refused_text_stays_in_its_scratch_file(mounted: Mount, sample: Map) -> None:
    scratch = Path(mounted.path / "sample/entries/.scratch")
    scratch.write_bytes(b"no number\n")
    for name in ("1", "2", "none"):
        with pytest.raises(OSError, match="Invalid argument"):
            scratch.rename(scratch.with_name(name))
        assert scratch.read_bytes() == b"no number\n"
    assert dump(sample) == {u32(1): u64(500)}
