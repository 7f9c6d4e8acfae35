"""The clock of the mount is set back, or forward, while it works: nothing waits by that clock."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path

import pytest
from support.maps import dump, make_map, u32, u64
from support.mounting import COMMAND, Mount
from support.readers import SOON, hexed, reading
from support.rings import rings
from support.waiting import eventually

from fusefs.bpf.map import Map

HOUR = 3600
JUMPS = [-HOUR, HOUR, -20 * 365 * 24 * HOUR, 0]  # seconds from the true time; there and back


class Clock:
    """What time it is to a mount, and to no one else: the system's is for other tests, too."""

    def __init__(self, file: Path) -> None:
        self._file = file
        (library,) = Path("/usr/lib").glob("*/faketime/libfaketime.so.1")
        settings = {
            "LD_PRELOAD": library,
            "FAKETIME_TIMESTAMP_FILE": file,
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        self.command = ["env", *(f"{name}={value}" for name, value in settings.items()), *COMMAND]
        self.set(0)

    def set(self, seconds: int) -> None:
        """It is so much later than it is; at once."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+}\n")
        new.rename(self._file)


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path / "time")


@pytest.fixture
def sample(clock: Clock, mounter: Callable[..., Mount]) -> Iterator[tuple[Mount, Map]]:
    """A mount with that clock, and a map of which the entry 1 is 500."""
    mount = mounter(command=clock.command)
    with make_map() as made:
        made.update(u32(1), u64(500))
        mount.pin("sample", made)
        yield mount, made


def has_size(path: Path, size: int) -> bool:
    return path.stat().st_size == size


def tells(path: Path, text: str) -> bool:
    return text in path.read_text()


def told_now(mount: Mount) -> float:
    """What time it is to the mount: a refusal is noted with it."""
    assert mount.sh("echo x > sample/entries/1").code
    told = re.findall(r"^\S+Z", (mount.path / "sample/error_log").read_text(), re.MULTILINE)
    return datetime.fromisoformat(told[-1]).timestamp()


def test_what_changes_is_seen_and_what_is_written_is_there(
    clock: Clock, sample: tuple[Mount, Map]
) -> None:
    mount, made = sample
    entry = mount.path / "sample/entries/1"
    for turn, seconds in enumerate(JUMPS):
        before = entry.stat().st_mtime_ns
        clock.set(seconds)
        assert abs(told_now(mount) - time.time() - seconds) < 60
        text = f"{10 ** (3 + turn)}\n"
        made.update(u32(1), u64(int(text)))
        eventually("it is seen", partial(has_size, entry, len(text)), SOON)
        assert entry.read_text() == text
        changed = entry.stat()
        assert changed.st_mtime_ns != before
        assert abs(changed.st_mtime - time.time() - seconds) < 60
        assert entry.stat().st_mtime_ns == changed.st_mtime_ns  # as long as nothing changes
        entry.write_text("77\n")
        assert dump(made) == {u32(1): u64(77)}
        other = f"other{turn}"  # (what looks for it asks often for the time, which is slow now)
        mount.pin(other, made)
        info = mount.path / "sample/info"
        eventually("it is found", partial(tells, info, other), 10)
        with make_map(name="new") as new:
            said = mount.sh(
                f"cat .by-id/maps/{new.info.id}/info sample/info.json; ls -l sample/entries"
            )
            assert "name: new\n" in said.stdout
            assert said.stdout.endswith(" 1\n")


def test_who_waits_has_what_comes(clock: Clock, mounter: Callable[..., Mount]) -> None:
    mount = mounter(command=clock.command)
    with rings(mount.source) as made, reading(mount.path / "maps/small") as reader:
        for turn, seconds in enumerate(JUMPS):
            clock.set(seconds)
            record = b"%d" % turn
            began = time.monotonic()
            made.put(record)
            assert reader.lines(1) == hexed(record)
            assert time.monotonic() - began < SOON
        file = os.open(mount.path / "maps/small/info", os.O_RDONLY)
        clock.set(-HOUR)
        assert os.read(file, 1 << 16).startswith(b"type: ringbuf")
        os.close(file)
