"""`stats`: what the kernel counts of a program, and having it count."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.mounting import Mount
from support.programs import load
from support.running import run
from support.shell import ENVIRONMENT, checked
from support.waiting import eventually

from fusefs.bpf.program import Program

RUNS = 1000


def held(mount: Mount) -> int:
    """How many times a mount holds statistics on."""
    count = 0
    for fd in Path(f"/proc/{mount.process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
            count += os.readlink(fd) == "anon_inode:bpf-stats"
    return count


def counted(program: Program) -> int:
    """How many of some runs are counted now."""
    before = program.information().run_cnt
    run(program, 7)
    count: int = program.information().run_cnt - before
    return count


def off(mount: Mount) -> None:
    """Wait until a mount does not, and the kernel has stopped: it tells the mount of a close a
    moment after that, and stops a moment after the descriptor is gone."""
    eventually("it lets go", lambda: held(mount) == 0, 1)
    with load() as another:
        eventually("nothing is counted", lambda: counted(another) == 0, 1)


def stats(mount: Mount, name: str = "sample") -> dict[str, Any]:
    """What the file says."""
    told: dict[str, Any] = yaml.safe_load((mount.path / name / "stats").read_text())
    return told


@pytest.fixture
def program(mounted: Mount) -> Iterator[Program]:
    """A program, which is pinned as `sample`."""
    with load() as made:
        yield mounted.pin("sample", made)


def test_figures_as_bpftool_has_them(mounted: Mount, program: Program) -> None:
    before = stats(mounted)
    assert (before["run_cnt"], before["run_time_ns"], before["average_ns"]) == (0, 0, None)
    with (mounted.path / "sample/stats").open("w"):
        run(program, RUNS)
        told = json.loads(checked("bpftool", "-j", "prog", "show", "id", str(program.info.id)))
        now = stats(mounted)
        assert now["run_cnt"] == told["run_cnt"] == RUNS
        assert now["run_time_ns"] == told["run_time_ns"] > 0
        assert now["average_ns"] == round(now["run_time_ns"] / RUNS, 1)
        assert now["recursion_misses"] == 0
        run(program, 5)
        assert stats(mounted)["run_cnt"] == RUNS + 5
    info = json.loads((mounted.path / "sample/info.json").read_text())
    assert info["run_cnt"] == RUNS + 5


def test_they_are_counted_only_while_it_is_open(mounted: Mount, program: Program) -> None:
    if counted(program):
        pytest.skip("somebody else holds statistics on")
    with (mounted.path / "sample/stats").open("a"):
        assert held(mounted) == 1
        assert counted(program) == 7
    off(mounted)
    assert counted(program) == 0
    assert stats(mounted)["run_cnt"] == 7


def test_it_is_read_from_the_file_that_holds_them_on(mounted: Mount, program: Program) -> None:
    with (mounted.path / "sample/stats").open("r+b", buffering=0) as file:
        assert yaml.safe_load(file.read())["run_cnt"] == 0
        run(program, 3)
        file.seek(0)
        assert yaml.safe_load(file.read())["run_cnt"] == 3


def test_two_holders(mounted: Mount, program: Program) -> None:
    with load() as other:
        mounted.pin("other", other)
        first = (mounted.path / "sample/stats").open("w")
        with (mounted.path / "other/stats").open("w"):
            first.close()
            eventually("one is left", lambda: held(mounted) == 1, 1)
            run(program, 2)
            run(other, 3)
        off(mounted)
        assert (stats(mounted)["run_cnt"], stats(mounted, "other")["run_cnt"]) == (2, 3)


def test_it_says_whether_they_are_on(mounted: Mount, program: Program) -> None:
    with load() as other:
        mounted.pin("other", other)
        if Path("/proc/sys/kernel/bpf_stats_enabled").read_text() != "1\n":
            told = stats(mounted)["statistics"]
            assert told.startswith("off, ") and "sleep 10 > stats" in told
            assert "sysctl kernel.bpf_stats_enabled=1" in told
        with (mounted.path / "sample/stats").open("w"):
            for name in ("sample", "other"):
                assert stats(mounted, name)["statistics"].startswith("on, as long as")
        off(mounted)
        assert not stats(mounted)["statistics"].startswith("on, as long as")


def test_to_read_it_turns_nothing_on(mounted: Mount, program: Program) -> None:
    with (mounted.path / "sample/stats").open() as file:
        assert held(mounted) == 0
        file.read()
        assert held(mounted) == 0
    mounted.sh("grep -r . sample; cat sample/stats; tail -n 1 sample/stats; file sample/*")
    assert held(mounted) == 0


def test_as_it_says(mounted: Mount, program: Program) -> None:
    """With `sleep`, in the shell, with both redirections."""
    for redirection in (">", ">>", "3<>"):
        command = ["bash", "-c", f"exec sleep 60 {redirection} sample/stats"]
        process = subprocess.Popen(command, cwd=mounted.path, env=ENVIRONMENT)
        try:
            eventually("it is on", lambda: held(mounted) == 1, 2)
        finally:
            process.terminate()
            process.wait()
        off(mounted)
    assert mounted.error_log("sample") == ""


def test_a_holder_that_is_killed(mounted: Mount, program: Program) -> None:
    command = ["bash", "-c", "exec 3> sample/stats; echo; read -r"]
    with subprocess.Popen(
        command, cwd=mounted.path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout and holder.stdout.readline()
        assert held(mounted) == 1
        holder.send_signal(signal.SIGKILL)
    off(mounted)


@pytest.mark.parametrize("text", ["1\n", "0", "on\n"])
def test_there_is_nothing_to_set(mounted: Mount, program: Program, text: str) -> None:
    result = mounted.sh("cat > sample/stats", text.encode())
    assert result.stderr.endswith("Invalid argument\n")
    assert "there is nothing to set" in mounted.error_log("sample")
    off(mounted)
    assert mounted.sh("echo > sample/stats; : > sample/stats; truncate -s 0 sample/stats").code == 0
    assert mounted.error_log("sample") == ""
    off(mounted)


def test_a_mount_that_changes_nothing(mounter: Callable[..., Mount]) -> None:
    mount = mounter("-o", "ro")
    with load() as program:
        mount.pin("sample", program)
        with pytest.raises(OSError) as caught:
            os.open(mount.path / "sample/stats", os.O_WRONLY)
        assert caught.value.errno == errno.EROFS
        assert held(mount) == 0
        assert stats(mount)["run_cnt"] == 0


def test_the_end_of_the_mount_turns_them_off(mounter: Callable[..., Mount]) -> None:
    mount = mounter()
    with load() as program:
        mount.pin("sample", program)
        if counted(program):
            pytest.skip("somebody else holds statistics on")
        with pytest.raises(OSError), (mount.path / "sample/stats").open("w"):
            assert held(mount) == 1
            mount.process.terminate()
            mount.process.wait(10)
        assert counted(program) == 0


def test_nothing_is_left_open(mounted: Mount, program: Program) -> None:
    directory = Path(f"/proc/{mounted.process.pid}/fd")
    before = len(os.listdir(directory))
    for _ in range(50):
        (mounted.path / "sample/stats").open("w").close()
    off(mounted)
    eventually("all are closed", lambda: len(os.listdir(directory)) == before, 1)
