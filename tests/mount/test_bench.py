"""`scripts/bench`: that it measures what it says. How fast anything is, is not tested."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.mounting import mounts_at, temporary_directory, unmount
from support.shell import ENVIRONMENT, checked, run
from support.waiting import eventually

SCRIPTS = Path(__file__).parents[2] / "scripts"
PATHS = [str(SCRIPTS), *filter(None, [os.environ.get("PYTHONPATH")])]
ENV = {**ENVIRONMENT, "PYTHONPATH": os.pathsep.join(PATHS)}
BENCH = [sys.executable, "-m", "benchmark"]
# What is measured: the group, words that tell it, what it is compared with, and the goal.
ROWS = [
    ("dump", r"× u32", "bpftool", {"ratio": 0.2}),
    ("dump", r"× u32", "kernel's cat", {"ratio": 1.2}),
    ("dump", r"× struct", "bpftool", {"ratio": 0.2}),
    ("dump", r"× struct", "kernel's cat", {"ratio": 1}),
    ("dump", r"× per-CPU u32", "bpftool", {"ratio": 0.25}),
    ("dump", r"× per-CPU struct", "bpftool", {"ratio": 0.25}),
    ("dump", r"× IPv4 prefix", "bpftool", {"ratio": 0.25}),
    ("write", r"× u32", "bpftool batch", {"ratio": 0.05}),
    ("write", r"× u32", "our dump", {"ratio": 3}),
    ("write", r"× struct", "bpftool batch", {"ratio": 0.05}),
    ("write", r"× struct", "our dump", {"ratio": 3}),
    ("list", r"ls -U", "bare", {"ratio": 1.5}),
    ("list", r"ls -l", "bare, timeouts 1 s", {"ratio": 2}),
    ("list", r"grep", "bare, timeouts 0", {"ratio": 0.6}),
    ("single", r"cat entries/KEY", "bpftool", {"ratio": 0.5}),
    ("single", r"echo V > entries/KEY", "bpftool", {"ratio": 0.5}),
    *(
        ("single", f"^{work}.*: {side}", "bare, timeouts 0", {"ratio": 0.6})
        for work in ("open, read", "stat", "overwrite")
        for side in ("client", "server CPU")
    ),
    *(
        ("load", f"^{work}", "bare beside a stream", {"most": 10})
        for work in ("open, read", "stat", "overwrite")
    ),
    ("memory", r"idle", "bare", {"most": 45}),
    ("memory", r"dump and a listing", "bare, listing", {"most": 30}),
    ("memory", r"kernel", "bare", {"most": 100}),
    ("growth", r"dump", "cheapest: .*", {"ratio": 1.25}),
    ("growth", r"of a listing", "cheapest: .*", {"ratio": 1.25}),
    ("start", r"mount", "bare", {"ratio": 1.5}),
]


def mounted_below(path: Path) -> str:
    """What the kernel says of mounts there."""
    lines = Path("/proc/self/mountinfo").read_text(errors="replace").split("\n")[:-1]
    return "\n".join(line for line in lines if f" {path}/" in line)


def nothing_is_left(path: Path) -> bool:
    """Whether all that was made there for the benchmark is gone."""
    return not mounted_below(path) and not [*path.glob("bpf-fusefs-bench-*")]


def test_all_is_measured_and_nothing_is_left(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    env = {**ENV, "TMPDIR": str(tmp_path)}
    result = run([*BENCH, "--entries", "500", "--json", str(file)], env=env, seconds=100)
    assert result.code == 0, result
    assert nothing_is_left(tmp_path)
    rows = json.loads(file.read_text())["rows"]
    shown = [line for line in result.stdout.splitlines() if line.startswith("| ")][2:]
    assert len(shown) == len(rows)
    for group, work, peer, goal in ROWS:
        (row, line), *more = (
            (row, line)
            for row, line in zip(rows, shown, strict=True)
            if row["group"] == group
            and re.search(work, row["work"])
            and re.fullmatch(peer, row["peer"])
        )
        assert not more, (group, work, peer)
        assert {name: limit for name, limit in row["goal"].items() if limit is not None} == goal
        assert isinstance(row["ours"], float) and isinstance(row["theirs"], float)
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[0] == row["work"]
        assert re.fullmatch(r"[\d.,e-]+ (s|ms|µs|MB)", cells[1])
        assert re.fullmatch(rf"{peer}: [\d.,e-]+ (s|ms|µs|MB)", cells[2])
        assert cells[4].startswith("≤")
        assert cells[5] == {True: "met", False: "NOT met"}[row["met"]]


def test_what_fails_is_a_row_and_the_exit_code(tmp_path: Path) -> None:
    (tmp_path / "bpftool").write_text("#!/bin/sh\necho it is broken >&2; exit 3\n")
    (tmp_path / "bpftool").chmod(0o755)
    env = {**ENV, "PATH": f"{tmp_path}:{ENV['PATH']}", "TMPDIR": str(tmp_path)}
    result = run([*BENCH, "--entries", "100", "--only", "dump", "--only", "start"], env=env)
    assert result.code == 1
    assert "it is broken" in result.stdout
    assert "command to answering mount" in result.stdout
    assert nothing_is_left(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it(tmp_path: Path, number: signal.Signals) -> None:
    env = {**ENV, "TMPDIR": str(tmp_path)}
    command = [*BENCH, "--only", "growth"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE) as process:
        try:
            eventually("it mounts", lambda: "fuse." in mounted_below(tmp_path), 20)
            process.send_signal(number)
            assert process.wait(20) == 128 + number
        finally:
            process.kill()
    assert nothing_is_left(tmp_path)


@pytest.fixture
def bare() -> Iterator[Path]:
    """A bare file system of 3000 names."""
    with temporary_directory() as parent:
        path = parent / "bare"
        path.mkdir()
        command = [sys.executable, "-m", "benchmark.bare", str(path), "3000", "0"]
        with subprocess.Popen(command, env=ENV) as process:
            try:
                eventually("mounted, or ended", lambda: mounts_at(path) or process.poll(), 20)
                yield path
                checked("umount", path)
                assert process.wait(10) == 0
            finally:
                unmount(path)
                process.kill()


def test_the_bare_file_system(bare: Path) -> None:
    assert sorted(os.listdir(bare)) == ["entries", "stream"]
    entries = bare / "entries"
    assert sorted(os.listdir(entries), key=int) == [str(number) for number in range(3000)]
    assert {(entry.name, entry.inode()) for entry in os.scandir(entries)} == {
        (path.name, path.stat().st_ino) for path in entries.iterdir()
    }
    assert (entries / "2999").read_text() == "12345\n"
    assert (entries / "2999").stat().st_size == 6
    for name in ("3000", "x"):
        assert not (entries / name).exists()
    (entries / "7").write_text("4\n")
    assert (entries / "7").read_text() == "12345\n"
    assert len(checked("head", "-c", "3000000", bare / "stream")) == 3_000_000
