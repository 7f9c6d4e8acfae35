"""Many processes that use maps which a program changes with every packet."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import load_client
from support.growth import Held
from support.maps import u32
from support.mounting import Mount
from support.network import compile_program, network, pin_attached
from support.running import running
from support.sections import Loaded, load
from support.shell import ENVIRONMENT
from support.soaking import Figure, passing
from support.waiting import eventually

Mounter = Callable[..., Mount]

CLIENT = Path(load_client.__file__)
LATE_COMMAND = Path(__file__).with_name("late_command.py")
# The client gives up before; this is how long after the end of their time it may take to see that.
LATE = load_client.LONGEST + 30
FEW, MANY = 6, 32
LONG = 60  # seconds
ROOM = 16 << 10  # kilobytes by which the daemon may grow, whatever the time


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_program("load", tmp_path_factory.mktemp("programs"))


@pytest.fixture
def loaded(mounter: Mounter, compiled: Path) -> Iterator[Loaded]:
    """The program, and what it does not make by itself."""
    mounted = mounter()
    made = load(mounted, compiled, "xdp")
    maps = mounted.path / "maps"
    with made.program:
        for key in range(load_client.STAYING):
            for name in ("locked_hash", "locked_array"):
                text = json.dumps(load_client.value_of(key, 0))
                (maps / name / f"entries/{key}").write_text(text)
            (maps / f"percpu_hash/entries/{key}").write_text("0")
        covering = load_client.value_of(load_client.COVERING, 1)
        (maps / "lpm_trie/entries/10.0.0.0_8").write_text(json.dumps(covering))
        yield made


def packets(loaded: Loaded) -> int:
    """How often the program has run."""
    with loaded.map("load_bss") as variables:
        return int.from_bytes(variables.lookup(u32(0))[:8], sys.byteorder)


@contextlib.contextmanager
def flood(loaded: Loaded) -> Iterator[None]:
    """Packets that come as fast as can be."""
    source = loaded.mount.source
    with network() as net:
        pin_attached(net, source / "program", source / "link")
        script = CLIENT.with_name("flood.py")
        command = ["ip", "netns", "exec", net.client, sys.executable, str(script), "0"]
        with subprocess.Popen(command, env=ENVIRONMENT) as sender:
            try:
                yield
                assert sender.poll() is None
            finally:
                sender.kill()
                (source / "link").unlink()


@contextlib.contextmanager
def repeat(loaded: Loaded) -> Iterator[None]:
    """The program is run without packets."""
    with running(loaded.program, 10_000):
        yield


def crowd(mount: Mount, clients: int, seconds: float) -> list[dict[str, Any]]:
    """Have many use the maps for some time; what each tells."""
    processes = [
        subprocess.Popen(
            [sys.executable, CLIENT, mount.path / "maps", str(number), str(seconds)],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for number in range(clients)
    ]
    try:
        told = [process.communicate(timeout=seconds + LATE) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    wrong = [error.decode() for _, error in told if error]
    assert not wrong, f"{len(wrong)} of {clients}: {wrong[0]}"
    return [json.loads(out) for out, _ in told]


@pytest.mark.soak(short=1.5, share=10)
@pytest.mark.parametrize("traffic", [flood, repeat], ids=lambda traffic: traffic.__name__)
def test_no_wrong_value_no_lost_write_no_hang_no_growth(
    loaded: Loaded,
    traffic: Callable[[Loaded], contextlib.AbstractContextManager[None]],
    span: float,
    figure: Figure,
) -> None:
    mount = loaded.mount
    clients = MANY if span > LONG else FEW
    with traffic(loaded):
        eventually("each key was changed", lambda: packets(loaded) > 10 * load_client.KEYS)
        crowd(mount, clients, min(span / 10, 30))
        before = Held.by(mount.process.pid)
        seen, start = packets(loaded), time.monotonic()
        told = crowd(mount, clients, span)
        rate = (packets(loaded) - seen) / (time.monotonic() - start)
    eventually(
        "descriptors are given back",
        lambda: Held.by(mount.process.pid).descriptors.total() <= before.descriptors.total(),
    )
    after = Held.by(mount.process.pid)
    assert after.threads <= before.threads + 2
    assert after.kilobytes < before.kilobytes + ROOM, (before.kilobytes, after.kilobytes)
    assert rate > 1000
    counts: Counter[str] = sum((Counter(one["done"]) for one in told), Counter())
    figure("processes", clients)
    figure("operations", counts.total())
    figure("runs of the program in a second", int(rate))
    for name, count in sorted(counts.items()):
        longest = max(one["longest"].get(name, 0) for one in told)
        figure(f"{name}: how often, and the longest", f"{count:,}, {1000 * longest:.0f} ms")
    figure("before", before)
    figure("after", after)


@pytest.mark.soak(short=1)
def test_a_key_that_comes_and_goes_is_there_or_not(
    mounter: Mounter, compiled: Path, span: float, figure: Figure
) -> None:
    """And its handle is never stale: nobody has it open."""
    mount = mounter(command=[sys.executable, str(LATE_COMMAND)])
    made = load(mount, compiled, "xdp")
    hashed = load_client.Map(mount.path / "maps/hash", 0)
    found = 0
    with made.program, running(made.program, 2000):
        for turn in passing(span, 64):
            key = hashed.changing[turn % len(hashed.changing)]
            value = hashed.read(key)
            assert value is None or load_client.is_whole(key, value)
            found += value is not None
    figure("looks at keys that come and go, and of these found", f"{turn + 1:,}, {found:,}")


def test_the_clients_see_what_is_wrong(loaded: Loaded) -> None:
    """A value that is another key's, and a write that was lost."""
    mount = loaded.mount
    with running(loaded.program, 1000):
        eventually("each key was changed", lambda: packets(loaded) > 10 * load_client.KEYS)
    maps = [load_client.Map(mount.path / "maps" / name, 0) for name in load_client.CHECKED]
    for each in maps:
        for key in range(load_client.STAYING):
            each.file(key).write_text(json.dumps(load_client.value_of(key + 1, 1)))
    with pytest.raises(AssertionError, match="AssertionError: "):
        crowd(mount, 1, 3)
    own = maps[0]
    own.set(own.own[0], 1)
    assert own.read(own.own[0]) == own.known[own.own[0]]
    os.unlink(own.file(own.own[0]))
    with pytest.raises(AssertionError):
        own.check_own({})
