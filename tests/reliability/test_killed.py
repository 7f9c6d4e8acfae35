"""`kill -9` in the middle of everything: clients get an error, what is there is old or new, nothing
is left of the mount, and another takes its place."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import failing_calls
from support.actions import ACTIONS, Client
from support.cgroups import cgroup
from support.failing_calls import End, Plan
from support.mounting import COMMAND, Mount, mounted_bpffs, mounts_at, temporary_directory
from support.shell import run
from support.soaking import Figure, passing
from support.stage import Stage, between, stage
from support.trials import LONGEST, Failing
from support.waiting import eventually

# What a client may be told of a mount that is dead.
DEAD = {errno.ENOTCONN, errno.ECONNABORTED}
OPTIONS = "allow_other,by_id=visible"
# In a cgroup of its own, so that none of its children gets lost.
APART = ["bash", "-c", 'echo $$ > "$0"/cgroup.procs; exec "$@"']


@dataclass
class Killing:
    """Mounts that are killed, of a stage. `learned` is a mount that lives."""

    stage: Stage
    plan: Plan
    plan_path: Path
    learned: Failing

    @contextlib.contextmanager
    def mount(self) -> Iterator[Mount]:
        """A mount that will be killed. After it, another is made in its place, like it."""
        with temporary_directory() as parent, cgroup("killed") as group:
            faulty = [sys.executable, "-P", failing_calls.__file__, str(self.plan_path)]
            command = [*APART, str(group), *faulty]
            mount = Mount(self.stage.bpffs, parent, ["-o", OPTIONS], command)
            try:
                yield mount
                assert mount.process.wait(LONGEST) == -signal.SIGKILL, mount.log()
                processes = group / "cgroup.procs"
                eventually("its children end", lambda: not processes.read_text(), LONGEST)
                self._again(mount.path)
            finally:
                mount.close()

    def _again(self, place: Path) -> None:
        """Mount over the dead mount."""
        before = _options(place)
        command = [*COMMAND, str(self.stage.bpffs), str(place), "-o", OPTIONS]
        assert run(command, seconds=20).code == 0
        assert mounts_at(place) == ["fuse.bpf-fusefs"]
        assert _options(place) == before
        assert (place / "array/entries/1").read_text() == "100\n"
        assert ".by-id" in os.listdir(place)
        assert run(["umount", place]).code == 0


def _options(place: Path) -> str:
    """Those of the mount on `place`, as the kernel has them."""
    lines = os.fsdecode(Path("/proc/self/mountinfo").read_bytes()).splitlines()
    (line,) = (line for line in lines if line.split()[4] == str(place))
    return " ".join(line.split()[5:6] + line.split()[-3:])


@pytest.fixture(scope="module")
def killing() -> Iterator[Killing]:
    """The stage, and what happens on it when nobody is killed."""
    with mounted_bpffs() as bpffs, stage(bpffs, 20_000) as made, temporary_directory() as parent:
        living, plan = parent / "living", parent / "plan"
        command = [sys.executable, "-P", failing_calls.__file__, str(living)]
        mount = Mount(bpffs, parent, [], command)
        try:
            learned = Failing(made, mount, Plan(living))
            yield Killing(made, Plan(plan), plan, learned)
        finally:
            mount.close()


@pytest.mark.soak(short=2, share=3)
def test_killed_at_a_system_call(killing: Killing, span: float, figure: Figure) -> None:
    tried = failed = 0
    for _ in passing(span):
        name = random.choice(list(ACTIONS))
        which = random.randint(1, killing.learned.calls(name))
        wanted = killing.learned.learn(name)
        with killing.mount() as mount:
            client = Failing(killing.stage, mount, killing.plan)
            os.listdir(mount.path)
            with client.fault(which, random.choice(list(End))):
                answer, _ = client.answer(name)
            mount.process.kill()  # if it made fewer calls
            assert answer in DEAD | {0}, f"{name}, call {which}: {answer}"
            state = killing.stage.state()
            mixed = between(killing.stage.start, wanted.state, state)
            assert not mixed, f"{name}, call {which}"
        killing.stage.reset()
        tried += 1
        failed += answer in DEAD
    figure("mounts killed at a system call", tried)
    figure("of which in an operation", failed)


class Busy(Client):
    """Who does things until the mount is dead. `count` is how much was done."""

    count = 0


def anything(client: Client) -> None:
    """Any operation."""
    ACTIONS[random.choice(list(ACTIONS))].do(client)


def blocked(client: Client) -> None:
    """Read what nobody writes."""
    client.read("ring/records_pipe")


def polling(client: Client) -> None:
    """Wait for what nobody writes."""
    fd = os.open(client.path / "ring/records_pipe", os.O_RDONLY)
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        poll.poll(1000 * 100)
    finally:
        os.close(fd)


def until_dead(work: Callable[[Client], None], client: Busy) -> None:
    """Do something again and again; others do the same, and may be in the way."""
    while True:
        try:
            work(client)
        except OSError as error:
            if error.errno in DEAD:
                return
            time.sleep(0.01)
        client.count += work is anything


CLIENTS: list[Callable[[Client], None]] = [*[anything] * 4, blocked, polling]


@pytest.mark.soak(short=1, share=2)
def test_killed_while_many_are_busy(killing: Killing, span: float, figure: Figure) -> None:
    known = [killing.learned.learn(name).state for name in ACTIONS]
    done = killed = 0
    for _ in passing(span):
        done += killed_when_busy(killing, random.randint(1, 60))
        killed += 1
        for cell, value in killing.stage.state().items():
            whole = {state.get(cell) for state in [killing.stage.start, *known]}
            assert value in whole or cell[0] == "name", f"{cell}: {value!r}"
        killing.stage.reset()
    figure("mounts killed while six clients were busy", killed)
    figure("operations until then", done)


def killed_when_busy(killing: Killing, goal: int) -> int:
    """Kill a mount when its clients have done so much; how much they have. They all end soon."""
    with killing.mount() as mount, ThreadPoolExecutor(len(CLIENTS)) as pool:
        client = Busy(killing.stage, mount.path)
        clients = [pool.submit(until_dead, work, client) for work in CLIENTS]
        # A client that hangs would let nobody go.
        abort = threading.Timer(3 * LONGEST, run, [["umount", "-f", mount.path]])
        abort.start()
        eventually("they are busy", lambda: client.count >= goal, 2 * LONGEST)
        mount.process.kill()
        began = time.monotonic()
        for one in clients:
            one.result()
        assert time.monotonic() - began < LONGEST / 2
        abort.cancel()
    return client.count
