"""A bpffs that is taken away, hidden, moved or made read-only while it is shown."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.maps import make_map, pin, u32, u64
from support.mounting import Mount, mounts_at, unmount
from support.shell import LET_OTHERS_GO, checked, run
from support.waiting import eventually

from fusefs.bpf.map import Map

BUSY = "target is busy.\n"
READ_ONLY = "Read-only file system\n"


@pytest.fixture
def sample(bpffs: Path) -> Iterator[Map]:
    """A pinned map of which the entry 1 is 500."""
    with make_map() as made:
        made.update(u32(1), u64(500))
        pin(bpffs / "sample", made)
        yield made


@pytest.fixture
def mount(mounter: Callable[..., Mount], sample: Map) -> Mount:
    """A mount, in which all has been looked at."""
    mount = mounter()
    assert mount.sh("ls -R > /dev/null; cat sample/info > /dev/null").code == 0
    return mount


def cpu_of(mount: Mount) -> float:
    """The seconds that it has computed for."""
    fields = Path(f"/proc/{mount.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def works(mount: Mount) -> None:
    """What was shown is shown, and can be changed; and nothing goes on meanwhile."""
    for command, output in {
        "ls": "maps.debug\nprogs.debug\nsample\n",
        "cat sample/entries/1": "500\n",
        "echo 7 > sample/entries/2; cat sample/entries/2; rm sample/entries/2": "7\n",
        "cat sample/entries.jsonl": '{"key": 1, "value": 500}\n',
        "grep ^name sample/info": "name: sample\n",
        "mkdir new && rmdir new": "",
        "grep -c ^digraph .by-id/graph.dot": "1\n",
    }.items():
        result = mount.sh(command, seconds=10)
        assert (result.code, result.stdout, result.stderr) == (0, output, ""), (command, result)
    before = cpu_of(mount)
    time.sleep(0.2)
    assert cpu_of(mount) - before < 0.1


def test_it_is_busy_while_it_is_shown(mount: Mount) -> None:
    for how in ("umount", "umount -f"):
        assert run([*how.split(), mount.source]).stderr.endswith(BUSY)
    works(mount)
    assert mount.end() == 0
    checked("umount", mount.source)


def test_it_is_unmounted_lazily(mount: Mount, mounter: Callable[..., Mount]) -> None:
    with (mount.path / "sample/entries/1").open() as opened:
        checked("umount", "-l", mount.source)
        works(mount)
        mount.source.rmdir()
        works(mount)
        assert opened.read() == "500\n"
    assert mount.end() == 0
    mount.source.mkdir()
    checked("mount", "-t", "bpf", "bpf", mount.source)
    assert mounter().sh("ls").stdout == "maps.debug\nprogs.debug\n"


@pytest.mark.parametrize("kind", ["bpf", "tmpfs"])
def test_another_is_mounted_over_it(mount: Mount, kind: str) -> None:
    checked("mount", "-t", kind, kind, mount.source)
    works(mount)
    checked("umount", mount.source)
    works(mount)


def test_its_mount_point_is_moved(mount: Mount) -> None:
    moved = mount.source.with_name("moved")
    moved.mkdir()
    try:
        # A mount that is shared with others cannot be moved.
        checked("mount", "--bind", moved, moved)
        checked("mount", "--make-private", moved)
        checked("mount", "--bind", mount.source, moved)
        checked("umount", "-l", mount.source)
        works(mount)
        # Those who ask where a pin is are told of the place where it is now.
        eventually(
            "it is found", lambda: f"{moved}/sample" in mount.sh("cat sample/info").stdout, 5
        )
    finally:
        unmount(moved)


@contextlib.contextmanager
def elsewhere(mount: Mount) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a mount namespace of its own, which has a copy of the mount and its bpffs."""
    others = LET_OTHERS_GO.replace("umount -l", f"[ \"$mounted\" = '{mount.path}' ] || umount -l")
    assert "||" in others
    script = f"{others.strip()}; echo; read; umount -l '{mount.source}'; echo; read"
    with subprocess.Popen(
        ["unshare", "-m", "bash", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_mount_namespace_ends(mount: Mount) -> None:
    with elsewhere(mount) as process:
        assert process.stdin and process.stdout
        assert process.stdout.readline() == b"\n"
        process.stdin.write(b"\n")  # it unmounts the bpffs there
        process.stdin.flush()
        assert process.stdout.readline() == b"\n"
        works(mount)
        checked("umount", mount.path)
        time.sleep(0.2)
        assert mount.process.poll() is None  # it is mounted there
    assert mount.process.wait(5) == 0
    assert not mounts_at(mount.path)


def test_it_is_made_read_only(mount: Mount, sample: Map) -> None:
    """What can be read still is; and what cannot be changed says so."""
    checked("mount", "-o", "remount,ro", mount.source)
    time.sleep(0.2)  # what was opened before is let go
    for command, output in {
        "cat sample/entries/1": "500\n",
        "cat sample/entries.jsonl": '{"key": 1, "value": 500}\n',
        "ls sample/entries; cat sample/count": "1\n1\n",
        "grep ^name sample/info": "name: sample\n",
    }.items():
        result = mount.sh(command)
        assert (result.code, result.stdout) == (0, output), (command, result)
    for command in (
        "echo 7 > sample/entries/1",
        "echo 7 > sample/entries/2",
        "rm sample/entries/1",
        "mv sample/entries/1 sample/entries/2",
        'echo \'{"key": 1, "value": 2}\' > sample/entries.jsonl',
        "echo 1 > sample/frozen",
        "mkdir new",
        "rmdir sample",
    ):
        result = mount.sh(command)
        assert result.code == 1 and result.stderr.endswith(READ_ONLY), (command, result)
    assert sample.lookup(u32(1)) == u64(500) and not sample.frozen()
    assert "the bpffs is mounted read-only" in mount.error_log("sample")
    checked("mount", "-o", "remount,rw", mount.source)
    time.sleep(0.2)
    works(mount)
