"""Formats of maps, seen and set through a mount."""

from __future__ import annotations

import os
from pathlib import Path

from fusefs.bpf.map import Map
from support.maps import make_map, u64
from support.mounting import Mount
from support.shell import Result

ADDRESSES = [bytes([10, 0, 0, 1]), bytes([192, 0, 2, 255])]
NAMES = ["10.0.0.1", "192.0.2.255"]


def sample_of(mount: Mount, name: str = "sample") -> Map:
    """A hash of bare numbers, pinned; two of its keys are addresses to whoever knows."""
    sample = mount.pin(name, make_map())
    for number, address in enumerate(ADDRESSES):
        sample.update(address, u64(number))
    return sample


def shown(mount: Mount, name: str = "sample") -> list[str]:
    """The names of a map's entries."""
    return sorted(os.listdir(mount.path / name / "entries"))


def settings(mount: Mount, name: str = "sample") -> dict[str, str]:
    """What `format` shows."""
    lines = (mount.path / name / "format").read_text().splitlines()
    return dict(line.split(": ", 1) for line in lines)


def set_to(mount: Mount, text: str, name: str = "sample") -> Result:
    """Write lines to `format`, as a shell does."""
    return mount.sh(f"cat > {name}/format", given=text.encode())


def accepted(result: Result) -> None:
    assert (result.code, result.stderr) == (0, ""), result


def forget(mount: Mount) -> None:
    """Have the kernel forget all that it has looked up."""
    mount.sh("ls -R")
    Path("/proc/sys/vm/drop_caches").write_text("2\n")
