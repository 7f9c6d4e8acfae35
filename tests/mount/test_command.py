"""The command: how it begins, ends, and says what is wrong."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from support.maps import dump, make_map, pin
from support.mounting import COMMAND, Mount, mounts_at
from support.shell import Result, run
from support.waiting import eventually

from fusefs import __version__

Mounter = Callable[..., Mount]
TYPE = "fuse.bpf-fusefs"


def command(*arguments: str | Path) -> Result:
    """Run the command as a shell would."""
    return run([*COMMAND, *arguments], seconds=20)


def processes(mountpoint: Path) -> list[int]:
    """The processes that serve a mount."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if os.fsencode(mountpoint) in words and any(b"bpf-fusefs" in word for word in words[:2]):
            found.append(int(path.parent.name))
    return found


def error_of(path: Path) -> int:
    """The errno of a stat."""
    try:
        os.stat(path)
    except OSError as error:
        return error.errno or 0
    return 0


def test_in_the_background(bpffs: Path, place: Path) -> None:
    pin(bpffs / "sample", make_map())
    for _ in range(3):
        assert command(bpffs, place) == Result(0, "", "")
        assert mounts_at(place) == [TYPE]
        assert "sample" in os.listdir(place)
        (process,) = processes(place)
        assert os.readlink(f"/proc/{process}/cwd") == "/"
        assert os.readlink(f"/proc/{process}/fd/2") == "/dev/null"
        assert os.getsid(process) != os.getsid(0)
        assert run(["umount", place]).code == 0
        eventually("it has ended", lambda: not processes(place))
    assert os.listdir(place) == []


@pytest.mark.parametrize("how", ["umount", "fusermount3", "SIGTERM", "SIGINT", "SIGHUP"])
def test_it_ends_well(mounter: Mounter, how: str) -> None:
    mount = mounter()
    assert mount.sh("ls -la").code == 0
    if how == "umount":
        assert run(["umount", mount.path]).code == 0
    elif how == "fusermount3":
        assert run(["fusermount3", "-u", mount.path]).code == 0
    else:
        mount.process.send_signal(signal.Signals[how])
    assert mount.process.wait(5) == 0
    assert mounts_at(mount.path) == []
    assert os.listdir(mount.path) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_while_files_are_open(mounter: Mounter, number: signal.Signals) -> None:
    mount = mounter()
    mount.pin("sample", make_map())
    file = os.open(mount.path / "sample/info", os.O_RDONLY)
    try:
        assert os.read(file, 10)
        os.chdir(mount.path)
        mount.process.send_signal(number)
        assert mount.process.wait(5) == 0
    finally:
        os.chdir("/")
        with contextlib.suppress(OSError):  # there is nobody any more who could close it well
            os.close(file)
    eventually("nothing is mounted", lambda: not mounts_at(mount.path))


def test_sigterm_ends_one_in_the_background(bpffs: Path, place: Path) -> None:
    assert command(bpffs, place).code == 0
    (process,) = processes(place)
    os.kill(process, signal.SIGTERM)
    eventually("it has ended", lambda: not processes(place))
    assert mounts_at(place) == []


def test_a_dead_mount_is_repaired(bpffs: Path, place: Path) -> None:
    assert command(bpffs, place).code == 0
    (process,) = processes(place)
    os.kill(process, signal.SIGKILL)
    eventually("it is dead", lambda: not processes(place))
    eventually("the kernel has noticed", lambda: error_of(place) == errno.ENOTCONN)
    assert command(bpffs, place) == Result(0, "", "")
    assert mounts_at(place) == [TYPE]
    assert os.listdir(place)


def test_debug_logs_each_request(mounter: Mounter) -> None:
    mount = mounter("-d")
    mount.pin("sample", make_map())
    mount.sh("ls -l sample; cat sample/entries/7; echo x > sample/entries/7")
    for name in ("lookup", "readdir", "write"):
        assert re.search(rf"DEBUG: {name}\(", mount.log()), mount.log()
    assert "ENOENT" in mount.log()
    assert "EINVAL" in mount.log()


def test_the_foreground_is_quiet(mounter: Mounter) -> None:
    mount = mounter()
    mount.sh("ls -R; cat missing; echo 5 > some.file")
    assert mount.log() == ""


def test_help_fits_a_terminal() -> None:
    result = command("--help")
    assert (result.code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0].startswith("usage: bpf-fusefs ")
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80


def test_version() -> None:
    assert command("--version") == Result(0, f"bpf-fusefs {__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "MOUNTPOINT"),
        (["a", "b", "c"], "too many"),
        (["a", "b", "--nonsense"], "--nonsense"),
        (["a", "b", "-x"], "-x"),
        (["a", "b", "-o"], "-o"),
        (["a", "b", "-o", "nonsense"], "nonsense"),
        (["a", "b", "-o", "ro,max_read=5"], "max_read=5"),
    ],
)
def test_wrong_command_lines(arguments: list[str], reason: str) -> None:
    result = command(*arguments)
    assert result.code == 2
    assert result.stdout == ""
    assert re.fullmatch(r"bpf-fusefs: .*\n", result.stderr)
    assert reason in result.stderr


@pytest.fixture(params=[[], ["-f"]], ids=["background", "foreground"])
def mode(request: pytest.FixtureRequest) -> list[str]:
    """Errors are the same in the background and in the foreground."""
    return list(request.param)


def fails(result: Result, place: Path, reason: str) -> None:
    """The command fails with one line, and has mounted nothing."""
    assert result.code == 1, result
    assert result.stdout == ""
    assert re.fullmatch(r"bpf-fusefs: .*\n", result.stderr), result
    assert reason in result.stderr
    assert TYPE not in mounts_at(place)


# One capability is left to the other user: to reach the command, wherever the checkout is.
NOBODY = "--reuid=65534 --regid=65534 --clear-groups"
READS = "--inh-caps=+dac_read_search --ambient-caps=+dac_read_search"


@pytest.mark.parametrize(
    "without", ["--bounding-set=-all --inh-caps=-all", f"{NOBODY} {READS}"], ids=["root", "nobody"]
)
def test_without_privilege(bpffs: Path, place: Path, mode: list[str], without: str) -> None:
    os.chown(place, 65534, 65534)
    result = run(["setpriv", *without.split(), *COMMAND, bpffs, place, *mode], seconds=5)
    fails(result, place, "no permission for bpf(2): run it as root")


def test_without_dev_fuse(bpffs: Path, place: Path, mode: list[str]) -> None:
    hidden = 'mount -t tmpfs tmpfs /dev && exec "$@"'
    result = run(["unshare", "-m", "bash", "-c", hidden, "-", *COMMAND, bpffs, place, *mode])
    fails(result, place, "/dev/fuse is missing: load the module with 'modprobe fuse'")


def test_a_source_that_is_no_bpffs(place: Path, mode: list[str]) -> None:
    source = place.parent / "source"
    fails(command(source, place, *mode), place, f"{source}: No such file or directory")
    source.mkdir()
    fails(command(source, place, *mode), place, f"mount -t bpf bpf {source}")
    source.rmdir()
    source.touch()
    fails(command(source, place, *mode), place, f"{source}: Not a directory")


def test_a_mountpoint_that_is_no_empty_directory(bpffs: Path, place: Path, mode: list[str]) -> None:
    missing = place / "missing"
    fails(command(bpffs, missing, *mode), place, f"{missing}: No such file or directory")
    file = place / "file"
    file.touch()
    fails(command(bpffs, file, *mode), place, f"{file}: Not a directory")
    fails(command(bpffs, place, *mode), place, f"{place}: the directory is not empty")
    file.unlink()


def test_a_mountpoint_inside_the_source(bpffs: Path, mode: list[str]) -> None:
    inside = bpffs / "inside"
    inside.mkdir()
    for path in (inside, bpffs):
        fails(command(bpffs, path, *mode), path, f"{path} is inside the bpffs")


def test_a_mount_over_a_mount(bpffs: Path, place: Path, mode: list[str]) -> None:
    assert command(bpffs, place).code == 0
    result = command(bpffs, place, *mode)
    assert (result.code, result.stdout) == (1, "")
    assert "mounted here already" in result.stderr
    assert mounts_at(place) == [TYPE]


def test_two_mounts_of_one_source(mounter: Mounter) -> None:
    first, second = mounter(), mounter()
    first.pin("sample", make_map())
    assert first.sh("echo 5 > sample/entries/1").code == 0
    assert second.sh("cat sample/entries/1").stdout == "5\n"


def test_a_mount_can_be_read_only(mounter: Mounter) -> None:
    mount = mounter("-o", "ro")
    sample = mount.pin("sample", make_map())
    for line in ("echo 5 > sample/entries/1", "mkdir new", "rmdir sample", "chmod 777 sample"):
        assert mount.sh(line).stderr.endswith("Read-only file system\n"), line
    assert dump(sample) == {}
    assert mount.sh("cat sample/count").stdout == "0\n"


def test_options_of_mount_are_taken_off(mounter: Mounter) -> None:
    foreign = "rw,nosuid,nodev,noatime,defaults,noauto,nofail,_netdev,x-systemd.automount"
    mount = mounter("-o", foreign, "-o", "fsname=some name")
    assert mount.sh("findmnt -no SOURCE,FSTYPE .").stdout == f"some name {TYPE}\n"


def test_the_mount_is_named_after_its_source(mounter: Mounter, bpffs: Path) -> None:
    odd = bpffs / "a,b c\\d"
    odd.mkdir()
    mount = mounter(source=odd)
    assert mount.sh("findmnt -rno SOURCE . | sed 's/%/\\\\/g'").code == 0
    assert mount.sh("findmnt -Jo SOURCE . | jq -r '.filesystems[0].source'").stdout == f"{odd}\n"
