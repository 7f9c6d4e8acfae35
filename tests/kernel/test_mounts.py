"""What is mounted, whatever it is called."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from fusefs.bpf.mounts import Mounted, is_read_only, mounts


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What is unmounted at the end."""
    with ExitStack() as made:
        yield made


def mount(stack: ExitStack, source: str, directory: Path, *options: str) -> Mounted:
    """Mount a file system that keeps its files in memory; what is known of it."""
    directory.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", *options, source, directory], check=True)
    stack.callback(lambda: subprocess.run(["umount", directory], check=True))
    return [each for each in mounts() if each.mountpoint == str(directory)][-1]


@pytest.mark.parametrize("source", ["", "none", "a b", "a - b", "\\040"])
def test_sources_of_any_name(stack: ExitStack, tmp_path: Path, source: str) -> None:
    made = mount(stack, source, tmp_path)
    assert made == Mounted(
        "/", str(tmp_path), "tmpfs", read_only=False, device=tmp_path.stat().st_dev
    )


@pytest.mark.parametrize(
    "name", ["a b", "a\nb", "a\rb", "a\tb", "a\\040b", "\x85\x0b", "grün", " - "]
)
def test_mount_points_of_any_name(stack: ExitStack, tmp_path: Path, name: str) -> None:
    assert mount(stack, "none", tmp_path / name).kind == "tmpfs"


def test_the_topmost_tells_whether_it_is_read_only(stack: ExitStack, tmp_path: Path) -> None:
    assert not is_read_only(str(tmp_path))
    assert not mount(stack, "none", tmp_path).read_only
    assert mount(stack, "none", tmp_path, "-o", "ro").read_only
    assert is_read_only(str(tmp_path))
    mount(stack, "none", tmp_path)
    assert not is_read_only(str(tmp_path))
