"""No descriptors left: each kind of operation with none to be had, with one, with two, until there
are enough."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import random
import resource
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.actions import ACTIONS
from support.maps import make_map, u32, u64
from support.mounting import COMMAND, Mount, mounted, mounted_bpffs
from support.shell import ENVIRONMENT, run
from support.soaking import Figure, passing
from support.stage import stage
from support.trials import Trials, descriptors, no_growth
from support.users import nobody
from support.waiting import eventually

Mounter = Callable[..., Mount]

# No operation takes so many at once.
ENOUGH = 10


@contextlib.contextmanager
def left(mount: Mount, count: int) -> Iterator[None]:
    """While this lasts, a mount can have only so many descriptors more than it has."""
    limits = resource.prlimit(mount.process.pid, resource.RLIMIT_NOFILE)
    used = set(descriptors(mount))
    free = (number for number in itertools.count() if number not in used)
    lowest = next(itertools.islice(free, count, None))
    resource.prlimit(mount.process.pid, resource.RLIMIT_NOFILE, (lowest, limits[1]))
    try:
        yield
    finally:
        resource.prlimit(mount.process.pid, resource.RLIMIT_NOFILE, limits)


@pytest.fixture(scope="module")
def trials() -> Iterator[tuple[Trials, Mount]]:
    """A mount of everything."""
    with (
        mounted_bpffs() as bpffs,
        stage(bpffs, 2000) as made,
        mounted(bpffs, complains=True) as mount,
    ):
        yield Trials(made, mount), mount


@pytest.mark.soak(short=2, share=2)
def test_without_descriptors_nothing_is_half_done(
    trials: tuple[Trials, Mount], span: float, figure: Figure
) -> None:
    tried, mount = trials
    matrix = [(name, count) for name in ACTIONS for count in range(ENOUGH + 1)]
    with no_growth(lambda: len(descriptors(mount))):
        for turn in passing(span):
            if turn % len(matrix) == 0:
                random.shuffle(matrix)
            name, count = matrix[turn % len(matrix)]
            tried.learn(name)
            answer = tried.attempt(name, left(mount, count))
            assert answer in (0, errno.EMFILE), f"{name} with {count}: {errno.errorcode[answer]}"
            assert count < ENOUGH or not answer, f"{name} takes more than {count}"
    figure("operations with 0 to 10 descriptors left", sum(tried.answers.values()))
    figure("of which answered with EMFILE", tried.answers["EMFILE"])


FEW = 64
WITH_FEW = ["prlimit", f"--nofile={FEW}", *COMMAND]


@contextlib.contextmanager
def all_opened(path: Path) -> Iterator[int]:
    """A file is opened until there are no descriptors; how often."""
    opened: list[int] = []

    def refused() -> bool:
        try:
            opened.append(os.open(path, os.O_RDONLY))
        except OSError as error:
            assert error.errno == errno.EMFILE
            return True
        return False

    try:
        for _ in range(2):  # one is kept for a moment
            eventually("it is refused", refused)
            time.sleep(0.2)
        yield len(opened)
    finally:
        for fd in opened:
            with contextlib.suppress(OSError):  # the mount has ended
                os.close(fd)


def test_all_are_used_up_and_come_back(mounter: Mounter) -> None:
    mount = mounter(command=WITH_FEW)
    with make_map() as sample:
        sample.update(u32(1), u64(100))
        entry = mount.path / "sample/entries/1"
        mount.pin("sample", sample)
        assert entry.read_text() == "100\n"
        for _ in range(2):
            with all_opened(entry) as count:
                assert count > FEW // 2
                # What takes one alone may yet be done: to open a pin takes two for a moment.
                for command in ("cat sample/info", "echo 5 > sample/entries/1"):
                    assert mount.sh(command).stderr.endswith("Too many open files\n")
                assert os.statvfs(mount.path).f_namemax == 255
            eventually("they are back", lambda: mount.sh("cat sample/info > /dev/null").code == 0)
            assert sample.lookup(u32(1)) == u64(100)


def test_a_mount_without_descriptors_can_be_ended(mounter: Mounter) -> None:
    mount = mounter(command=WITH_FEW)
    with make_map() as sample:
        sample.update(u32(1), u64(100))
        mount.pin("sample", sample)
        with all_opened(mount.path / "sample/entries/1"):
            mount.process.send_signal(signal.SIGTERM)
            assert mount.process.wait(10) == 0


_GREEDY = """
import os, sys, time
opened = []
try:
    while True:
        opened.append(os.open(sys.argv[1], os.O_RDONLY))
except OSError as error:
    print(len(opened), error.errno, flush=True)
sys.stdin.read()
"""


def test_others_cannot_take_those_of_root(mounter: Mounter) -> None:
    mount = mounter("-o", "allow_other", command=WITH_FEW)
    with make_map() as sample:
        sample.update(u32(1), u64(100))
        mount.pin("sample", sample)
        mount.source.chmod(0o755)
        (mount.source / "sample").chmod(0o644)
        file = "sample/entries/1"
        result = nobody(mount, f"exec python3 -c '{_GREEDY}' {file} < /dev/null")
        count, number = map(int, result.stdout.split())
        assert number == errno.EMFILE
        assert 0 < count < FEW // 2
        assert nobody(mount, f"cat {file}").stdout == "100\n"


@pytest.mark.parametrize("count", [5, 7])
def test_a_mount_that_cannot_begin_says_why_in_a_line(bpffs: Path, place: Path, count: int) -> None:
    command = ["prlimit", f"--nofile={count}", *COMMAND, str(bpffs), str(place), "-f"]
    result = run(command, env=ENVIRONMENT)
    assert result.code == 1
    assert result.stderr.endswith(": Too many open files\n")
    assert result.stderr.count("\n") == 1
