"""A mount that a container makes is seen outside of it, and what the container lacks."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.containers import Container, container, shared_directory
from support.maps import dump, make_map, pin, u32, u64
from support.mounting import mounts_at, temporary_directory
from support.shell import Result, bash, run
from support.unit import CAPABILITIES
from support.users import NOBODY
from support.waiting import eventually

DOCS = Path(__file__).parents[2] / "docs"
GROUP = 4321
SHOWN = "fuse.bpf-fusefs"


def manifest() -> dict[str, Any]:
    """The pod of docs/daemonset.yaml."""
    (document,) = yaml.safe_load_all((DOCS / "daemonset.yaml").read_text())
    assert (document["kind"], document["apiVersion"]) == ("DaemonSet", "apps/v1")
    template = document["spec"]["template"]
    assert document["spec"]["selector"]["matchLabels"] == template["metadata"]["labels"]
    pod: dict[str, Any] = template["spec"]
    return pod


def command() -> list[str]:
    """What its container runs."""
    (one,) = manifest()["containers"]
    words: list[str] = one["command"]
    return words


def capabilities() -> set[str]:
    """Those that it keeps."""
    (words,) = [word for word in command() if word.startswith("--bounding-set=-all,")]
    return {name.removeprefix("+") for name in words.split(",")[1:]}


@pytest.fixture
def outside() -> Iterator[Path]:
    """The directory in which the host sees the mount."""
    with temporary_directory() as parent, shared_directory(parent / "shown") as path:
        yield path


def volumes(bpffs: Path, outside: Path) -> dict[Path, str]:
    """The manifest's volumes, where they are here."""
    pod = manifest()
    places = {each["name"]: each["mountPath"] for each in pod["containers"][0]["volumeMounts"]}
    assert {each["name"] for each in pod["volumes"]} == {*places}
    return {bpffs: places["bpffs"], outside: places["shown"]}


def is_shown(outside: Path, one: Container) -> Path:
    """Wait until the mount is there."""
    path = outside / "bpf"
    eventually("it is mounted", lambda: mounts_at(path) or one.waits.poll() is not None, 20)
    assert mounts_at(path) == [SHOWN], one.log()
    return path


def as_member(path: Path, line: str) -> Result:
    """Run a command as another user, who is in a group."""
    user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", f"--groups={GROUP}"]
    return run([*user, "bash", "-c", line], cwd=path)


def test_it_keeps_the_capabilities_of_the_service() -> None:
    assert {f"CAP_{name.upper()}" for name in capabilities()} == {*CAPABILITIES}


def test_the_manifest_shows_the_bpffs_of_the_host(bpffs: Path, outside: Path) -> None:
    pod = manifest()
    assert pod["hostPID"] and pod["hostNetwork"]
    bpffs.chmod(0o755)
    made = make_map()
    made.update(u32(1), u64(101))
    pin(bpffs / "sample", made)
    os.mkdir(bpffs / "group")
    os.chown(bpffs / "group", 0, GROUP)
    os.chmod(bpffs / "group", 0o770)
    with container(command(), volumes(bpffs, outside)) as one:
        path = is_shown(outside, one)
        line = "cat sample/entries/1; echo 5 > sample/entries/2; grep ^holders sample/info"
        result = bash(line, path)
        assert result.stdout.startswith("101\n") and f'"pid": {os.getpid()},' in result.stdout
        assert dump(made) == {u32(1): u64(101), u32(2): u64(5)}
        assert as_member(path, "mkdir group/new") == Result(0, "", "")
        status = (bpffs / "group/new").stat()
        assert (status.st_uid, status.st_gid) == (NOBODY, NOBODY)
        assert as_member(path, "cat sample/info").stderr.endswith("Permission denied\n")
        os.kill(one.pid, signal.SIGTERM)
        assert one.waits.wait(10) == 0, one.log()
        eventually("it is unmounted", lambda: not mounts_at(path))


def test_one_that_was_killed_is_replaced_by_the_next(bpffs: Path, outside: Path) -> None:
    own_pids = ["--pid"]
    for _ in range(2):
        with container(command(), volumes(bpffs, outside), own_pids) as one:
            path = outside / "bpf"
            eventually("it answers", lambda: bash("ls bpf/maps.debug", outside).code == 0, 20)
            os.kill(one.pid, signal.SIGKILL)
            one.waits.wait(10)
            with pytest.raises(OSError, match="not connected"):
                os.listdir(path)


def test_without_the_pids_of_the_host_groups_do_not_count(bpffs: Path, outside: Path) -> None:
    bpffs.chmod(0o770)
    os.chown(bpffs, 0, GROUP)
    with container(command(), volumes(bpffs, outside), ["--pid"]) as one:
        path = is_shown(outside, one)
        assert as_member(path, "mkdir new").stderr.endswith("Permission denied\n")
