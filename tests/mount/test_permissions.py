"""Who may do what: as bpffs has it, for every user."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.maps import dump, make_map, u32, u64
from support.mounting import COMMAND, Mount
from support.network import compile_program, network, pin_attached
from support.shell import Result, checked, run
from support.users import DENIED, NOBODY, nobody
from support.waiting import eventually

from fusefs.bpf.map import Map

GROUP = 4321


@pytest.fixture
def mount(mounter: Callable[..., Mount]) -> Iterator[Mount]:
    """A mount for all users."""
    os.umask(0o022)
    mount = mounter("-o", "allow_other")
    mount.sh("chmod 755 .")
    yield mount


def sample_of(mount: Mount, mode: int) -> Map:
    """A pinned map with an entry, and the mode of its pin."""
    sample = mount.pin("sample", make_map())
    sample.update(u32(1), u64(101))
    os.chmod(mount.source / "sample", mode)
    return sample


READS = [
    "ls sample",
    "cat sample/info",
    "cat sample/info.json",
    "cat sample/entries/1",
    "cat sample/entries.jsonl",
    "cat sample/count",
    "cat sample/error_log",
    "cat sample/frozen",
    "ls sample/entries",
]
WRITES = [
    "echo 5 > sample/entries/1",
    "echo 5 > sample/entries/2",
    "rm -f sample/entries/1",
    "mv -f sample/entries/1 sample/entries/3",
    "echo > sample/error_log",
    "echo 1 > sample/frozen",
    "echo '{key: 1, value: 5}' > sample/entries.jsonl",
]


def test_a_pin_of_root_alone(mount: Mount) -> None:
    sample = sample_of(mount, 0o600)
    assert nobody(mount, "ls -ld sample").code == 0
    for command in READS + WRITES:
        result = nobody(mount, command)
        assert result.code, command
        assert result.stderr.endswith(DENIED), result
    assert dump(sample) == {u32(1): u64(101)}


def test_a_pin_that_others_may_read(mount: Mount) -> None:
    sample = sample_of(mount, 0o644)
    for command in READS:
        assert nobody(mount, command).code == 0, command
    for command in ["cat sample/btf", *WRITES]:  # bpf(2) gives BTF to root alone
        result = nobody(mount, command)
        assert result.code, command
        assert result.stderr.endswith(DENIED), result
    assert dump(sample) == {u32(1): u64(101)}
    assert not sample.frozen()


def test_a_pin_that_others_may_write(mount: Mount) -> None:
    sample = sample_of(mount, 0o666)
    command = "cd sample/entries; echo 5 > 1; echo 6 > 2; mv 1 3; cat 3; rm 2; ls"
    assert nobody(mount, command) == Result(0, "5\n3\n", "")
    assert dump(sample) == {u32(3): u64(5)}
    assert nobody(mount, "echo 1 > sample/info").stderr.endswith(DENIED)
    assert nobody(mount, "echo 1 > sample/frozen; cat sample/frozen").stdout == "1\n"


def test_a_pin_that_others_may_only_write(mount: Mount) -> None:
    sample = sample_of(mount, 0o622)
    assert nobody(mount, "echo 5 > sample/entries/1").code == 0
    for command in READS:
        assert nobody(mount, command).stderr.endswith(DENIED), command
    # To move a value is to read it, which bpf(2) refuses to who opened the map to write alone.
    assert nobody(mount, "mv sample/entries/1 sample/entries/2").stderr.endswith(DENIED)
    assert dump(sample) == {u32(1): u64(5)}
    assert nobody(mount, "rm -f sample/entries/1").code == 0
    assert dump(sample) == {}


@pytest.mark.parametrize("groups", [f"--groups={GROUP}", "--clear-groups"])
def test_groups_count(mount: Mount, groups: str) -> None:
    sample = sample_of(mount, 0o660)
    os.chown(mount.source / "sample", 0, GROUP)
    os.mkdir(mount.source / "shared")
    os.chown(mount.source / "shared", 0, GROUP)
    os.chmod(mount.source / "shared", 0o770)
    member = "clear" not in groups
    assert (nobody(mount, "echo 5 > sample/entries/1", groups).code == 0) == member
    assert (nobody(mount, "mkdir shared/new && ls shared", groups).code == 0) == member
    assert (sample.lookup(u32(1)) == u64(5)) == member
    assert os.listdir(mount.source / "shared") == (["new"] if member else [])


def test_the_owner_of_a_pin(mount: Mount) -> None:
    sample_of(mount, 0o600)
    os.chown(mount.source / "sample", NOBODY, NOBODY)
    assert nobody(mount, "cat sample/entries/1; chmod 640 sample").stdout == "101\n"
    assert os.stat(mount.source / "sample").st_mode & 0o777 == 0o640
    assert nobody(mount, "chown 0 sample").stderr.endswith("Operation not permitted\n")


def but_for_reading(path: Path) -> list[int]:
    """The attributes of a pin, without the time at which it was read: other mounts look for what is
    pinned where."""
    status = os.stat(path)
    whole = [status.st_mode, status.st_uid, status.st_gid, status.st_nlink, status.st_ino]
    return [*whole, status.st_mtime_ns, status.st_ctime_ns]


@pytest.mark.parametrize("mode", [0o755, 0o1777])
def test_others_do_not_touch_what_is_roots(mount: Mount, mode: int) -> None:
    sample_of(mount, 0o644)
    os.mkdir(mount.source / "directory")
    os.chmod(mount.source, mode)
    commands = ["rmdir sample", "mv sample other", "rmdir directory", "chmod 777 sample"]
    commands += ["chown 65534 sample", "touch -d @1 sample", "mkdir directory/new"]
    for command in commands:
        before = but_for_reading(mount.source / "sample")
        assert nobody(mount, command).code == 1, command
        assert but_for_reading(mount.source / "sample") == before
    assert sorted(os.listdir(mount.source))[:1] == ["directory"]
    assert os.listdir(mount.source / "directory") == []


def test_what_others_make_is_theirs(mount: Mount) -> None:
    os.chmod(mount.source, 0o1777)
    made = "umask 027; mkdir mine && ln -s nowhere mine/link && mkdir mine/deep"
    assert nobody(mount, made).code == 0
    for name in ("mine", "mine/link", "mine/deep"):
        status = os.lstat(mount.source / name)
        assert (status.st_uid, status.st_gid) == (NOBODY, NOBODY), name
    assert os.stat(mount.source / "mine").st_mode & 0o777 == 0o750
    assert (
        nobody(mount, "rmdir mine/deep && rm mine/link && mv mine other && rmdir other").code == 0
    )
    assert nobody(mount, "mkdir sub").code == 0
    os.chmod(mount.source, 0o755)
    assert nobody(mount, "mkdir no").stderr.endswith(DENIED)
    assert nobody(mount, "rmdir sub").stderr.endswith(DENIED)


@pytest.mark.parametrize("missing", ["setuid", "setgid"])
def test_nothing_is_made_for_others_where_it_would_not_be_theirs(
    mounter: Callable[..., Mount], missing: str
) -> None:
    """As in a container that keeps back a capability, where setfsuid(2) silently does nothing."""
    mount = mounter(
        "-o", "allow_other", command=["setpriv", f"--bounding-set=-{missing}", *COMMAND]
    )
    os.chmod(mount.source, 0o1777)
    before = os.listdir(mount.source)
    assert nobody(mount, "mkdir mine").stderr.endswith("Operation not permitted\n")
    assert os.listdir(mount.source) == before
    assert mount.sh("mkdir mine").code == 0


def test_a_private_directory(mount: Mount) -> None:
    os.mkdir(mount.source / "private", 0o700)
    sample = mount.pin("private/sample", make_map())
    os.chmod(mount.source / "private/sample", 0o666)
    for command in ("ls private", "cat private/sample/info", "echo 5 > private/sample/entries/1"):
        assert nobody(mount, command).stderr.endswith(DENIED), command
    assert dump(sample) == {}


def test_root_does_what_root_may(mount: Mount) -> None:
    sample = sample_of(mount, 0o600)
    os.chown(mount.source / "sample", NOBODY, NOBODY)
    assert mount.sh("echo 5 > sample/entries/1; cat sample/entries/1").stdout == "5\n"
    assert mount.sh("echo 5 > sample/info").stderr.endswith(DENIED)
    assert sample.lookup(u32(1)) == u64(5)


def test_without_allow_other_there_is_root_alone(mounted: Mount) -> None:
    sample_of(mounted, 0o666)
    result = run(["setpriv", f"--reuid={NOBODY}", "--clear-groups", "ls", mounted.path])
    assert result.stderr.endswith(DENIED)


def test_a_link_is_for_those_who_may_read_and_write_it(mount: Mount, tmp_path: Path) -> None:
    """As in bpffs, where the pin of a link opens to nobody else."""
    program, link = mount.source / "program", mount.source / "link"
    compiled = compile_program("xdp_count", tmp_path)
    checked("bpftool", "prog", "load", compiled, program, "type", "xdp")
    with network() as net:
        pin_attached(net, program, link)

        def may(what: str, groups: str = "--clear-groups") -> bool:
            results = [
                nobody(mount, f"cat {what}/{name}", groups) for name in ("info", "info.json")
            ]
            assert all(result.code == 0 or result.stderr.endswith(DENIED) for result in results)
            return all(result.code == 0 for result in results)

        def become(what: str, mode: int, uid: int, gid: int) -> None:
            os.chmod(mount.source / what, mode)
            os.chown(mount.source / what, uid, gid)
            shown = mount.path / what / "info"
            mode &= 0o444 if what == "program" else (mode & 0o222) << 1
            wanted = (stat.S_IFREG | mode, uid, gid)

            def now() -> tuple[int, int, int]:
                status = os.stat(shown)
                return status.st_mode, status.st_uid, status.st_gid

            eventually("the change is seen", lambda: now() == wanted, 1)

        # The pin of a program opens to those who may read it.
        for mode, program_allowed, link_allowed in (
            (0o600, False, False),
            (0o644, True, False),
            (0o622, False, False),
            (0o666, True, True),
        ):
            for name, allowed in (("program", program_allowed), ("link", link_allowed)):
                become(name, mode, 0, 0)
                assert may(name) == allowed, (name, oct(mode))
        become("link", 0o600, NOBODY, 0)
        assert may("link")
        for mode in (0o640, 0o660):
            become("link", mode, 0, GROUP)
            assert may("link", f"--groups={GROUP}") == (mode == 0o660)


def test_as_many_files_can_be_open_as_the_hard_limit_allows(mounter: Callable[..., Mount]) -> None:
    mount = mounter(command=["prlimit", "--nofile=64:4096", *COMMAND])
    limits = Path(f"/proc/{mount.process.pid}/limits").read_text()
    (line,) = (line for line in limits.splitlines() if line.startswith("Max open files"))
    assert line.split()[3:5] == ["4096", "4096"]
    mount.pin("sample", make_map()).update(u32(1), u64(101))
    files = []
    try:
        for _ in range(200):
            files.append((mount.path / "sample/entries/1").open())
    finally:
        for file in files:
            file.close()
