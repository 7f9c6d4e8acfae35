"""The request loop: slow, fast, cancelled and failing requests beside each other."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.maps import make_map, u32, u64
from support.mounting import COMMAND, Mount, mounts_at
from support.readers import Reader, hexed, reading
from support.rings import Rings, rings
from support.running import repeating
from support.shell import ENVIRONMENT, run
from support.soaking import Figure, passing
from support.waiting import eventually

from fusefs.bpf.map import MapType

Mounter = Callable[..., Mount]

LARGE = 20_000
LOOPS = ["fast", "stock"]
both_loops = pytest.mark.parametrize("loop", LOOPS)


def descriptors(mount: Mount) -> int:
    """How many the mount has open."""
    return len(os.listdir(f"/proc/{mount.process.pid}/fd"))


def threads(mount: Mount) -> int:
    """How many the mount has."""
    return len(os.listdir(f"/proc/{mount.process.pid}/task"))


def loop_of(mount: Mount) -> str:
    """Which loop serves: reads from the device of the fast one do not wait."""
    process = Path(f"/proc/{mount.process.pid}")
    (device,) = (fd for fd in (process / "fd").iterdir() if os.readlink(fd) == "/dev/fuse")
    lines = (process / "fdinfo" / device.name).read_text().splitlines()
    (flags,) = (int(line.split()[1], 8) for line in lines if line.startswith("flags:"))
    return "fast" if flags & os.O_NONBLOCK else "stock"


@contextlib.contextmanager
def busy(mount: Mount, file: str, clients: int = 4) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Clients that read the first line of a file without a pause, until they cannot."""
    script = f'while read -r line < "{file}"; do :; done'
    with ExitStack() as stack:
        started = []
        for _ in range(clients):
            client = subprocess.Popen(
                ["bash", "-c", script], cwd=mount.path, stderr=subprocess.DEVNULL, env=ENVIRONMENT
            )
            stack.callback(client.wait, 10)
            stack.callback(client.kill)
            started.append(client)
        yield started


@contextlib.contextmanager
def sampled(mount: Mount) -> Iterator[None]:
    """A small map, and one with `LARGE` entries."""
    with make_map() as sample, make_map(max_entries=LARGE) as large:
        for number in range(4):
            sample.update(u32(number), u64(101))
        for number in range(LARGE):
            large.update(u32(number), u64(number))
        mount.pin("sample", sample)
        mount.pin("large", large)
        yield


def killed_soon(mount: Mount, command: str) -> None:
    """Run a command, and kill it in the middle of what it does."""
    with subprocess.Popen(
        ["bash", "-c", command],
        cwd=mount.path,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        time.sleep(random.uniform(0, 0.03))
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait(10) == -signal.SIGKILL


def expecting(mount: Mount, command: str, code: int, output: str) -> Callable[[], None]:
    """A command that ends so, and says so."""

    def turn() -> None:
        result = mount.sh(command)
        assert (result.code, (result.stdout + result.stderr).strip()) == (code, output), result

    return turn


def turns(mount: Mount, made: Rings) -> Iterator[Callable[[], None]]:
    """What goes on during the soak."""
    # fast
    for key in (1, 2):
        command = f"echo {key}7 > sample/entries/{key} && cat sample/entries/{key}"
        yield expecting(mount, command, 0, f"{key}7")
    yield expecting(mount, "stat -c %s large/entries/5 large/entries/66", 0, "2\n3")
    # long
    yield expecting(mount, "wc -l < large/entries.jsonl", 0, str(LARGE))
    yield expecting(mount, "ls -U large/entries | wc -l", 0, str(LARGE))
    # failing
    yield expecting(
        mount,
        "cat sample/entries/99",
        1,
        "cat: sample/entries/99: No such file or directory",
    )
    yield expecting(
        mount,
        "LC_ALL=C; printf 'x\\n' | tee sample/entries/0",
        1,
        "x\ntee: sample/entries/0: Invalid argument",
    )
    # waiting, and ended by a signal
    yield expecting(mount, "timeout 0.05 cat maps/small/records_pipe", 124, "")

    # waiting, and woken
    def woken() -> None:
        with reading(mount.path / "maps/large") as reader:
            made.put(b"record", ring="large")
            assert reader.lines(1) == hexed(b"record")

    yield woken
    # killed
    for _ in range(2):
        yield lambda: killed_soon(
            mount,
            "while :; do read -r x < sample/entries/3; cat large/count; done &"
            " while :; do read -r x < sample/entries/3; echo 101 > sample/entries/3; done",
        )
    yield lambda: killed_soon(mount, "while cat large/entries.jsonl; do :; done")


@both_loops
@pytest.mark.soak(short=0)
def test_a_soak(mounter: Mounter, loop: str, span: float, figure: Figure) -> None:
    mount = mounter("-o", f"requests={loop}")
    assert loop_of(mount) == loop
    with sampled(mount), rings(mount.source) as made:
        mount.sh("cat */info */entries/3 */entries.jsonl maps/*/info; ls . maps programs")
        before = descriptors(mount), threads(mount)
        with ExitStack() as stack:
            going = [stack.enter_context(repeating(turn)) for turn in turns(mount, made)]
            for _ in passing(span, least=4):
                for each in going:
                    each.more()
        figure(f"turns of each, {loop} loop", min(each.count for each in going))
        made.put(b"last")
        assert mount.sh("head -n 1 maps/small/records_pipe").stdout == hexed(b"last")
        assert mount.sh("cat sample/entries/[0123]").stdout == "101\n17\n27\n101\n"
        eventually("all is given back", lambda: descriptors(mount) <= before[0])
        eventually("all threads have ended", lambda: threads(mount) <= before[1])
    assert mount.end() == 0


@both_loops
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_busy_mount(mounter: Mounter, loop: str, number: signal.Signals) -> None:
    # pyfuse3 complains when a client is killed, or the mount ends, before it could answer.
    mount = mounter("-o", f"requests={loop}", complains=True)
    with sampled(mount), rings(mount.source), ExitStack() as stack:
        clients = stack.enter_context(busy(mount, "sample/entries/1"))
        clients += stack.enter_context(busy(mount, "large/entries.jsonl", 1))
        reader = stack.enter_context(reading(mount.path / "maps/small"))
        mount.process.send_signal(number)
        assert mount.process.wait(5) == 0
        assert not mounts_at(mount.path)
        for process in [*clients, reader.process]:
            assert process.wait(10) == 1 or process in clients


@both_loops
def test_a_busy_mount_wakes_who_waits(mounter: Mounter, loop: str) -> None:
    mount = mounter("-o", f"requests={loop}")
    with (
        sampled(mount),
        rings(mount.source) as made,
        busy(mount, "sample/entries/1"),
        reading(mount.path / "maps/small") as reader,
    ):
        for number in range(20):
            made.put(bytes([number]))
            assert reader.lines(1) == hexed(bytes([number]))


@both_loops
@pytest.mark.parametrize("waiting", [20, 150])  # more than stand by; more than stock
def test_many_that_wait_hold_up_nobody(mounter: Mounter, loop: str, waiting: int) -> None:
    mount = mounter("-o", f"requests={loop}")
    with sampled(mount), ExitStack() as stack:
        for number in range(waiting):
            ring = make_map(MapType.RINGBUF, key=0, value=0, max_entries=4096, name="ring")
            mount.pin(f"ring{number}", stack.enter_context(ring))
        before = descriptors(mount)
        readers: list[Reader] = []
        for number in range(waiting):
            readers.append(stack.enter_context(reading(mount.path / f"ring{number}")))
            if number % 10 == 9:
                assert mount.sh("stat -c %s sample/entries/1", seconds=5).stdout == "4\n"
        # So many requests that each must not wait until another reader's is over.
        read = "dd if=large/entries.jsonl bs=1024 status=none | wc -l"
        assert mount.sh(read, seconds=10).stdout == f"{LARGE}\n"
        for reader in readers:
            reader.process.kill()
        for reader in readers:
            assert reader.process.wait(5) == -signal.SIGKILL
        assert mount.sh("cat sample/entries/1").stdout == "101\n"
        # The directories of the rings are known since.
        eventually("all is given back", lambda: descriptors(mount) <= before + waiting)


@pytest.mark.parametrize("value", ["", "slow", "FAST"])
def test_there_is_no_other_loop(bpffs: Path, tmp_path: Path, value: str) -> None:
    result = run([*COMMAND, str(bpffs), str(tmp_path), "-o", f"requests={value}"])
    assert (result.code, mounts_at(tmp_path)) == (2, [])
    assert result.stderr == f"bpf-fusefs: requests is 'fast' or 'stock', not '{value}'\n"


def test_the_fast_loop_is_the_default(mounter: Mounter) -> None:
    assert loop_of(mounter()) == "fast"


# The fast loop where something is not as it should be.


def changed(*lines: str) -> list[str]:
    """The command, with something changed in it beforehand."""
    return [sys.executable, "-c", "\n".join([*lines, "from fusefs.cli import main", "main()"])]


def test_requests_that_are_taken_back_before_they_are_read(mounter: Mounter) -> None:
    mount = mounter(
        command=changed(
            "from fusefs.loop import _Loop",
            "wait, waited = _Loop._wait_readable, []",
            "async def does_not_wait(self, fd):",
            "    waited.append(fd)",
            "    if len(waited) % 3:",
            "        await wait(self, fd)",
            "_Loop._wait_readable = does_not_wait",
        )
    )
    assert loop_of(mount) == "fast"
    with sampled(mount):
        for _ in range(100):
            assert (mount.path / "sample/entries/1").read_text() == "101\n"
        assert mount.sh("wc -l < large/entries.jsonl").stdout == f"{LARGE}\n"


def check_stock(mount: Mount) -> None:
    """The mount works, with the stock loop."""
    assert loop_of(mount) == "stock"
    with sampled(mount), rings(mount.source) as made:
        assert mount.sh("cat sample/entries/1").stdout == "101\n"
        with reading(mount.path / "maps/small") as reader:
            assert mount.sh("wc -l < large/entries.jsonl").stdout == f"{LARGE}\n"
            made.put(b"a")
            assert reader.lines(1) == hexed(b"a")


@pytest.mark.parametrize("version", ["3.6.0", "3.50.1", "4.0", "unknown"])
def test_with_a_pyfuse3_that_is_not_known(mounter: Mounter, version: str) -> None:
    mount = mounter(command=changed("import pyfuse3", f"pyfuse3.__version__ = {version!r}"))
    check_stock(mount)
    assert f"INFO: pyfuse3 {version} is not known" in mount.log()


@pytest.mark.parametrize(
    "change",
    [
        "import fusefs.loop; fusefs.loop._Turn.after_task_step = lambda self, task: None",
        "import fusefs.loop, trio; fusefs.loop._in_place_of_trio.__wrapped__.__code__"
        " = (lambda namespace: (yield)).__code__",
    ],
    ids=["turns are not passed on", "uses another trio"],
)
def test_a_trial_that_fails(mounter: Mounter, change: str) -> None:
    mount = mounter(command=changed(change), complains=True)
    check_stock(mount)
    assert "WARNING: the fast request loop does not work" in mount.log()
