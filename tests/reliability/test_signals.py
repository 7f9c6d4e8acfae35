"""Signals in every state: before there is a mount, while it works, while it ends."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from inotify_simple import INotify, flags
from support.maps import make_map, u32, u64
from support.mounting import COMMAND, Mount, mounts_at
from support.readers import reading
from support.rings import rings
from support.running import repeating
from support.shell import ENVIRONMENT, end_group
from support.soaking import Figure, passing
from support.waiting import eventually

from fusefs.bpf.map import Map

Mounter = Callable[..., Mount]

ENDING = ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"]
HARMLESS = [
    *("SIGUSR1", "SIGUSR2", "SIGALRM", "SIGVTALRM", "SIGPROF", "SIGIO", "SIGPWR"),
    *("SIGPIPE", "SIGCHLD", "SIGWINCH", "SIGURG", "SIGCONT", "SIGXFSZ"),
]


def numbers(names: list[str]) -> list[signal.Signals]:
    """Those signals."""
    return [signal.Signals[name] for name in names]


def send(pid: int, number: signal.Signals) -> bool:
    """Send a signal; whether there is somebody to have it."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


@contextlib.contextmanager
def storm(pid: int, signals: list[signal.Signals], pause: float = 0.001) -> Iterator[None]:
    """Signals for a process, without end."""
    ended = threading.Event()

    def blow() -> None:
        for number in itertools.cycle(signals):
            if ended.wait(pause) or not send(pid, number):
                return

    thread = threading.Thread(target=blow)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def children(pid: int) -> list[int]:
    """Those of a process, whichever of its threads has started them."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # that thread has ended
            found += map(int, (task / "children").read_text().split())
    return found


def has_ended(pid: int) -> bool:
    """Whether a process has, and its parent has taken note of that."""
    return not Path(f"/proc/{pid}").exists()


@pytest.fixture
def sample(mounter: Mounter) -> Iterator[tuple[Mount, Map]]:
    """A mount with a map of which the entry 1 is 500."""
    # pyfuse3 complains when the mount ends before the kernel took its last answer.
    mount = mounter(complains=True)
    with mount.pin("sample", make_map(max_entries=5000)) as made:
        made.update(u32(1), u64(500))
        yield mount, made


@pytest.mark.soak(short=1)
def test_a_storm_of_signals_that_mean_nothing(
    sample: tuple[Mount, Map], span: float, figure: Figure
) -> None:
    """Each write is committed, or not, and each read is whole."""
    mount, made = sample
    entry = mount.path / "sample/entries/1"
    turn = 0
    with (
        rings(mount.source) as loaded,
        storm(mount.process.pid, numbers(HARMLESS)),
        reading(mount.path / "maps/small") as reader,
    ):
        for turn in passing(span):
            entry.write_text(f"{turn}\n")
            assert made.lookup(u32(1)) == u64(turn)
            assert entry.read_text() == f"{turn}\n"
            if turn % 50 == 0:
                loaded.put(b"a")
                assert reader.lines(1) == '"61"\n'
                assert mount.sh("cat sample/info > /dev/null; ls sample").code == 0
    figure("writes in a storm of signals", turn + 1)
    assert mount.process.poll() is None
    assert mount.log() == ""


def test_the_process_that_echoes_is_signalled(sample: tuple[Mount, Map]) -> None:
    """Whatever becomes of it, the mount goes on, and no child of it is left."""
    mount, _ = sample
    mount.sh("ls")
    watching = INotify()
    watching.add_watch(mount.path, flags.CREATE)
    for name in ["SIGKILL", "SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGSTOP"]:
        (mount.source / f"made{name}").mkdir()
        eventually("it echoes", lambda: children(mount.process.pid), 10)
        for child in children(mount.process.pid):
            send(child, signal.Signals[name])
        assert mount.sh("ls > /dev/null; cat sample/entries/1", seconds=5).stdout == "500\n"
    watching.close()
    before = children(mount.process.pid)
    mount.process.send_signal(signal.SIGTERM)
    assert mount.process.wait(5) == 0
    for child in before:
        eventually("it has ended", functools.partial(has_ended, child))


@pytest.mark.parametrize("name", ENDING)
def test_signals_while_it_ends(sample: tuple[Mount, Map], name: str) -> None:
    """One is enough, and a thousand are not too many."""
    mount, _ = sample
    with rings(mount.source), ExitStack() as stack:
        stack.enter_context(reading(mount.path / "maps/small"))
        stack.enter_context(storm(mount.process.pid, [signal.Signals[name]], 0.0002))
        assert mount.process.wait(5) == 0
    assert not mounts_at(mount.path)
    assert mount.log().count("ended by") >= 1


@pytest.mark.soak(short=4, share=3)
def test_signals_while_it_begins(bpffs: Path, place: Path, span: float, figure: Figure) -> None:
    """There is a mount that works, or none: never a dead one, nor a process that is left."""
    began = time.monotonic()
    with subprocess.Popen([*COMMAND, str(bpffs), str(place), "-f"], env=ENVIRONMENT) as process:
        eventually("it is mounted", lambda: mounts_at(place), 20)
        taken = time.monotonic() - began
        process.terminate()
        assert process.wait(5) == 0
    codes: dict[str, int] = {}
    for turn in passing(span, least=4):
        number = signal.Signals[ENDING[turn % len(ENDING)]]
        with subprocess.Popen(
            [*COMMAND, str(bpffs), str(place), "-f"], env=ENVIRONMENT, stderr=subprocess.DEVNULL
        ) as process:
            time.sleep(random.uniform(0.8, 1.2) * taken)
            process.send_signal(number)
            code = process.wait(10)
        # Python itself, which takes no notice before it has begun, ends by SIGINT with 1.
        assert code in (0, -number, 1), (code, number)
        assert not mounts_at(place), (code, number)
        what = "ended well" if code == 0 else "ended before it was mounted"
        codes[what] = codes.get(what, 0) + 1
    for what, count in codes.items():
        figure(f"starts that were signalled and {what}", count)


@pytest.mark.soak(short=3)
def test_signals_for_a_command_that_goes_to_the_background(
    bpffs: Path, place: Path, span: float, figure: Figure
) -> None:
    for turn in passing(span, least=3):
        number = numbers([*ENDING, "SIGKILL"])[turn % 5]
        with subprocess.Popen(
            [*COMMAND, str(bpffs), str(place)], env=ENVIRONMENT, stderr=subprocess.DEVNULL
        ) as process:
            time.sleep(random.uniform(0.2, 0.9))
            process.send_signal(number)
            code = process.wait(10)
        if code:  # it was killed, and its child gives up, unless it was just done
            with contextlib.suppress(AssertionError):
                eventually("the child gives up", lambda: not mounts_at(place), 3)
        if mounts_at(place):
            assert os.listdir(place)  # it answers
            subprocess.run(["umount", place], check=True)
    figure("commands that were signalled", turn + 1)


@pytest.mark.soak(short=2)
def test_clients_are_signalled(sample: tuple[Mount, Map], span: float, figure: Figure) -> None:
    """In whatever they do; everybody else goes on."""
    mount, made = sample
    for number in range(5000):
        made.update(u32(number), u64(number))
    busy = "cat entries.jsonl count info; ls -l entries; echo 7 > entries/4000; cp info /dev/null"
    took: list[float] = []
    clients = 0

    def look() -> None:
        began = time.monotonic()
        assert (mount.path / "sample/entries/1").read_text() == "1\n"
        took.append(time.monotonic() - began)

    with repeating(look) as others:
        for clients in passing(span):
            number = numbers(["SIGKILL", "SIGTERM", "SIGINT", "SIGSTOP"])[clients % 4]
            with subprocess.Popen(
                ["bash", "-c", f"while :; do {busy}; done"],
                cwd=mount.path / "sample",
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=ENVIRONMENT,
                start_new_session=True,
            ) as process:
                time.sleep(random.uniform(0, 0.1))
                os.killpg(process.pid, number)
                others.more(3)
                process.kill()
                process.wait(5)
            end_group(process.pid)
    figure("clients that were signalled", clients + 1)
    figure("longest read of another meanwhile, s", round(max(took), 3))
    assert sorted(took)[len(took) // 2] < 0.5
