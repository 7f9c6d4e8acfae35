"""Who watches the mount, as file managers do, is told what others do to the bpffs behind it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest
from support.maps import dump, make_map, pin, u32, u64
from support.mounting import Mount, temporary_directory
from support.renaming import rename
from support.shell import checked
from support.watching import echoing, watching

from fusefs.bpf.bpffs import RenameFlags


def test_what_others_make_and_remove(mounted: Mount) -> None:
    behind = mounted.source
    (mounted.path / "dir").mkdir()
    with watching(mounted.path, mounted.path / "dir") as watcher:
        pin(behind / "map", make_map())
        assert watcher.told(1) == ["mount: CREATE map"]
        (behind / "map").rename(behind / "dir/moved")
        assert sorted(watcher.told(2)) == ["dir: CREATE moved", "mount: DELETE map"]
        (behind / "dir/link").symlink_to("moved")
        assert watcher.told(1) == ["dir: CREATE link"]
        (behind / "dir/link").unlink()
        assert watcher.told(1) == ["dir: DELETE link"]
        (behind / "dir/below").mkdir()
        assert watcher.told(1) == ["dir: CREATE below"]
        (behind / "dir/below").rmdir()
        (behind / "dir/moved").unlink()
        assert sorted(watcher.told(2)) == ["dir: DELETE below", "dir: DELETE moved"]
        # Nothing was done to the bpffs, and the mount shows it as it is.
        assert os.listdir(behind / "dir") == os.listdir(mounted.path / "dir") == []
        assert sorted(os.listdir(behind)) == sorted(os.listdir(mounted.path))


def test_what_was_done_in_the_mount_is_told_once(mounted: Mount) -> None:
    with watching(mounted.path) as watcher:
        pin(mounted.source / "map", make_map())
        watcher.told(1)
        assert (
            mounted.sh("mkdir a; rmdir a; ln -s map b; mv b c; rm c; mv map d; rmdir d").code == 0
        )
        done = watcher.told(9)
        pin(mounted.source / "last", make_map())
        assert watcher.told(1) == ["mount: CREATE last"]
        assert len(done) == 9 and done[-1] == "mount: DELETE d"


def test_a_pin_that_is_replaced_stays(mounted: Mount) -> None:
    """With what somebody has open in it, and who stands there."""
    made = [make_map() for _ in range(20)]
    for number, each in enumerate(made):
        each.update(u32(1), u64(number))
    pin(mounted.source / "map", made[0])
    standing = os.open(mounted.path / "map", os.O_PATH)
    try:
        with watching(mounted.path) as watcher:
            for each in made[1:]:
                (mounted.source / "map").unlink()
                pin(mounted.source / "map", each)
                watcher.told(1)
                assert (mounted.path / "map/entries/1").read_text() == f"{dump(each)[u32(1)][0]}\n"
            fd = os.open("entries/1", os.O_RDONLY, dir_fd=standing)
            assert os.read(fd, 100) == b"19\n"
            os.close(fd)
    finally:
        os.close(standing)


def test_a_pin_that_is_there_again_lives(mounted: Mount) -> None:
    """When its removal is told late, and others have just looked it up."""
    made = make_map()
    again = mounted.path / "map/info"
    with watching(mounted.path) as watcher:
        pin(mounted.source / "map", made)
        watcher.told(1)
        telling = echoing(mounted)
        os.kill(telling, signal.SIGSTOP)
        try:
            (mounted.source / "map").unlink()
            time.sleep(0.5)  # by then it was handed over
            pin(mounted.source / "map", made)
            standing = os.open(mounted.path / "map", os.O_PATH)
            again.stat()
        finally:
            os.kill(telling, signal.SIGCONT)
        try:
            deadline = time.monotonic() + 0.5
            while time.monotonic() < deadline:
                again.stat()
            assert watcher.told(1) == ["mount: CREATE map"]
            os.stat("info", dir_fd=standing)
        finally:
            os.close(standing)


def test_an_exchange_is_told_as_the_kernel_does(mounted: Mount) -> None:
    one, other = mounted.path / "one", mounted.path / "other"
    with watching(mounted.path) as watcher:
        one.mkdir()
        other.mkdir()
        watcher.told(2)
        rename(one, other, RenameFlags.EXCHANGE)
        assert len(watcher.told(4)) == 4
        pin(mounted.source / "last", make_map())
        assert watcher.told(1) == ["mount: CREATE last"]


def test_a_path_too_long_to_tell_hides_nobody(mounted: Mount) -> None:
    """Whatever another process has open, those who watch are told."""
    with temporary_directory() as parent, contextlib.ExitStack() as stack:
        directory = os.open(parent, os.O_PATH)
        stack.callback(os.close, directory)
        for _ in range(25):
            os.mkdir("d" * 200, dir_fd=directory)
            below = os.open("d" * 200, os.O_PATH, dir_fd=directory)
            stack.callback(os.rmdir, "d" * 200, dir_fd=directory)
            stack.callback(os.close, below)
            directory = below
        with watching(mounted.path) as watcher:
            pin(mounted.source / "map", make_map())
            assert watcher.told(1) == ["mount: CREATE map"]


def test_many_at_once(mounted: Mount) -> None:
    names = {f"map_{number}" for number in range(200)}
    with watching(mounted.path) as watcher, make_map() as made:
        for name in names:
            pin(mounted.source / name, made)
        assert set(watcher.told(200)) == {f"mount: CREATE {name}" for name in names}
        for name in names:
            (mounted.source / name).unlink()
        assert set(watcher.told(200)) == {f"mount: DELETE {name}" for name in names}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_it_ends_while_it_tells(bpffs: Path, number: signal.Signals) -> None:
    """Whatever ends it, and whenever: nobody waits for its answers after that."""
    names = [f"map_{count}" for count in range(50)]
    for _ in range(4):
        with temporary_directory() as parent, make_map() as made:
            mount = Mount(bpffs, parent)
            try:
                with watching(mount.path) as watcher:
                    for name in names:
                        pin(bpffs / name, made)
                    watcher.told(10)
                    mount.process.send_signal(number)
                    mount.process.wait(5)
            finally:
                mount.close()
                for name in names:
                    (bpffs / name).unlink()


def test_nothing_elsewhere_is_touched(mounted: Mount) -> None:
    """When something else has come to be where the mount was."""
    (mounted.path / "dir").mkdir()
    with watching(mounted.path, mounted.path / "dir") as watcher:
        (mounted.source / "dir/first").mkdir()
        assert watcher.told(1) == ["dir: CREATE first"]  # what tells is at work by now
        checked("mount", "-t", "tmpfs", "tmpfs", mounted.path)
        try:
            other = mounted.path
            (other / "dir").mkdir()
            (other / "gone").mkdir()
            pin(mounted.source / "gone", make_map())
            (mounted.source / "gone").unlink()
            (mounted.source / "dir/new").mkdir()
            (mounted.source / "dir").chmod(0o700)
            time.sleep(0.5)  # nothing tells that nothing happens
            assert sorted(os.listdir(other)) == ["dir", "gone"]
            assert os.listdir(other / "dir") == []
        finally:
            checked("umount", mounted.path)
        pin(mounted.source / "last", make_map())
        assert watcher.told(1) == ["mount: CREATE last"]
