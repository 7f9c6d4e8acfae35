"""`test_run`: running programs on what is written, and reading what came of it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from support.links import Loaded, loaded
from support.maps import u32
from support.mounting import Mount
from support.programs import load
from support.readers import SOON
from support.shell import ENVIRONMENT, run
from support.users import DENIED, nobody
from support.waiting import eventually

from fusefs.bpf.map import Map

Mounter = Callable[..., Mount]

PACKET = bytes(range(64))
# What `rewrites` makes of it.
TURNED = bytes(255 - byte for byte in PACKET[:14]) + PACKET[14:-4]
OF_CODE = ["classify", "jumps", "rewrites", "runs_long", "on_context"]


@pytest.fixture(scope="module")
def programs() -> Iterator[Loaded]:
    """The programs that are run."""
    with loaded("code") as programs:
        yield programs


@pytest.fixture
def pinned(mounted: Mount, programs: Loaded) -> Iterator[Mount]:
    """A mount that shows them. Afterwards none of them runs any more."""
    threads = Path(f"/proc/{mounted.process.pid}/task")
    before = len(os.listdir(threads))
    for name in OF_CODE:
        with programs.program(name) as program:
            mounted.pin(name, program)
    yield mounted
    eventually("all runs have ended", lambda: len(os.listdir(threads)) <= before, 20)


def opened(mount: Mount, name: str) -> BinaryIO:
    """`test_run` of a program, for reading and writing."""
    return (mount.path / name / "test_run").open("r+b", buffering=0)


def result(mount: Mount, name: str, given: bytes | dict[str, Any]) -> dict[str, Any]:
    """What a run gave."""
    with opened(mount, name) as file:
        file.write(given if isinstance(given, bytes) else json.dumps(given).encode())
        told: dict[str, Any] = json.loads(file.read())
        return told


# A run.


def test_bytes_in_and_json_out(pinned: Mount) -> None:
    told = result(pinned, "rewrites", PACKET)
    assert told.pop("duration_ns") > 0
    assert told == {"retval": 3, "action": "tx", "data_out": TURNED.hex()}


def test_the_shell_on_one_open_file(pinned: Mount) -> None:
    command = "exec 3<> rewrites/test_run; cat >&3; cat <&3; cat <&3"
    given = pinned.sh(command, PACKET)
    assert (given.code, given.stderr) == (0, "")
    assert json.loads(given.stdout)["data_out"] == TURNED.hex()
    again = pinned.sh(
        "exec 3<> rewrites/test_run; for n in 1 2; do printf %20d 1 >&3; cat <&3; done"
    )
    assert [json.loads(line)["retval"] for line in again.stdout.splitlines()] == [3, 3]


def test_python_with_and_without_a_seek(pinned: Mount) -> None:
    with opened(pinned, "rewrites") as file:
        for _ in range(3):
            file.write(PACKET)
            first = file.read()
            assert json.loads(first)["data_out"] == TURNED.hex()
            assert file.read() == b""
            file.seek(0)
            assert file.read() == first
    with (pinned.path / "rewrites/test_run").open("r+b") as buffered:
        buffered.write(PACKET)
        buffered.seek(0)
        assert json.loads(buffered.read())["data_out"] == TURNED.hex()


def test_two_open_files(pinned: Mount) -> None:
    told = pinned.sh("cat > rewrites/test_run; cat rewrites/test_run", PACKET)
    assert json.loads(told.stdout)["data_out"] == TURNED.hex()
    size = pinned.sh("stat -c %s rewrites/test_run; wc -c < rewrites/test_run").stdout.split()
    assert size[0] == size[1] == str(len(told.stdout))
    assert pinned.sh("cp rewrites/test_run /dev/stdout").stdout == told.stdout


def test_each_open_file_has_its_own_result(pinned: Mount) -> None:
    with opened(pinned, "rewrites") as first, opened(pinned, "rewrites") as second:
        first.write(PACKET)
        second.write(PACKET[:30])
        assert json.loads(first.read())["data_out"] == TURNED.hex()
        assert len(json.loads(second.read())["data_out"]) == 2 * 26


def test_before_the_first_run_it_is_empty(mounted: Mount) -> None:
    with load() as program:
        mounted.pin("sample", program)
        assert mounted.sh("cat sample/test_run; stat -c %s sample/test_run").stdout == "0\n"


def test_a_request(pinned: Mount) -> None:
    for given in ({"data_in": PACKET.hex()}, {"data_in": PACKET.hex(" "), "repeat": 1}):
        text = json.dumps(given, indent=2).encode()
        told = pinned.sh("cat > rewrites/test_run && cat rewrites/test_run", text)
        assert json.loads(told.stdout)["data_out"] == TURNED.hex()


def seen(programs: Loaded) -> int:
    """How often `classify` has run."""
    with programs.map("code.bss") as variables:
        return int.from_bytes((variables.lookup(u32(0)) or b"")[:8], sys.byteorder)


@pytest.mark.parametrize("repeat", [0, 1, 100])
def test_it_runs_as_often_as_asked(pinned: Mount, programs: Loaded, repeat: int) -> None:
    before = seen(programs)
    result(pinned, "classify", {"data_in": PACKET.hex(), "repeat": repeat})
    assert seen(programs) - before == max(repeat, 1)


def test_return_values(pinned: Mount) -> None:
    assert result(pinned, "jumps", PACKET)["retval"] == 7
    told = result(pinned, "jumps", PACKET[:20])
    assert told["retval"] == -7
    assert "action" not in told  # only XDP has such
    (pinned.path / "classify/maps/code.data/vars/threshold").write_text("50\n")
    try:
        assert result(pinned, "classify", PACKET)["action"] == "tx"
    finally:
        (pinned.path / "classify/maps/code.data/vars/threshold").write_text("100\n")
    assert result(pinned, "classify", PACKET)["action"] == "pass"


def test_a_context_with_a_packet(pinned: Mount) -> None:
    metadata = struct.pack("=6I", 4, 64, 0, 0, 0, 0)  # struct xdp_md: 4 bytes are before the packet
    told = result(pinned, "classify", {"data_in": PACKET.hex(), "ctx_in": metadata.hex()})
    assert told["data_out"] == PACKET.hex()
    assert told["ctx_out"] == metadata.hex()


def test_programs_that_run_on_a_context(pinned: Mount) -> None:
    context = struct.pack("=QQ", 5, 7)
    assert result(pinned, "on_context", context)["retval"] == 5 + 2 * 7
    told = result(pinned, "on_context", {"ctx_in": context.hex(), "flags": 1, "cpu": 0})
    assert (told["retval"], told["duration_ns"]) == (19, None)
    with loaded("code_kernel") as kernel, kernel.program("calls_the_kernel") as program:
        pinned.pin("kernel", program)
        request = struct.Struct("=iIQ")
        for pid, found in ((os.getpid(), 1), (1 << 29, 0)):
            told = result(pinned, "kernel", request.pack(pid, 9, 8))
            assert told["retval"] == -3
            assert request.unpack(bytes.fromhex(told["ctx_out"])) == (pid, found, 8)
        assert pinned.error_log("kernel") == ""


def test_descriptors_are_no_business_of_what_a_program_does(mounted: Mount) -> None:
    descriptors = Path(f"/proc/{mounted.process.pid}/fd")

    def maps_left() -> list[int]:
        return [number for number in Map.ids() if name_of(number) == b"left"]

    with loaded("code_kernel") as kernel, kernel.program("leaves_a_map") as program:
        mounted.pin("leaves", program)
        os.listdir(mounted.path)
        before = {name: os.readlink(descriptors / name) for name in os.listdir(descriptors)}
        for number in map(int, before):
            # It closes one, be it /dev/fuse, and gets one; but these are its own.
            told = result(mounted, "leaves", struct.pack("=iIQ", number, 0, 0))
            assert told["retval"] > 0
        eventually("the maps are gone", lambda: not maps_left(), 1)
        after = {name: os.readlink(descriptors / name) for name in os.listdir(descriptors)}
        assert before.items() <= after.items()
    assert mounted.error_log("leaves") == ""


def name_of(number: int) -> bytes:
    """The name of a map, by its id; empty when it is gone."""
    with contextlib.suppress(FileNotFoundError), Map.from_id(number) as found:
        return bytes(found.info.name)
    return b""


# What is refused.


REFUSED = {
    "short": "the kernel does not run it on 5 bytes of data and 0 of context",
    '{"data_in": "00", "repat": 5}': "expected data_in, ctx_in, repeat, flags, cpu, got 'repat'",
    '{"data_in": "0g"}': "data_in: expected hexadecimal digits",
    '{"data_in": 5}': "data_in: expected hexadecimal digits",
    '{"data_in": "00", "data_in": "00"}': "a name is there twice",
    '{"repeat": -1}': "repeat: expected a number of 32 bits",
    '{"repeat": 4294967296}': "repeat: expected a number of 32 bits",
    '{"repeat": true}': "repeat: expected a number of 32 bits",
    '{"repeat": 1.5}': "repeat: expected a number of 32 bits",
    '{"data_in": "00"} x': "this is no JSON: Extra data",
    '{"data_in": }': "this is no JSON",
    '{"a":' * 10_000 + "x": "this is too much JSON",
    '{"repeat": ' + "9" * 5000 + "}": "this is too much JSON",
    '{"data_in": "' + "00" * 60 + '", "flags": 4096}': "60 bytes of data and 0 of context, or not",
}


@pytest.mark.parametrize("text", REFUSED, ids=range(len(REFUSED)))
def test_what_it_refuses(pinned: Mount, text: str) -> None:
    last = result(pinned, "rewrites", PACKET)
    with opened(pinned, "rewrites") as file:
        with pytest.raises(OSError) as caught:
            file.write(text.encode())
        assert caught.value.errno == errno.EINVAL
        assert json.loads(file.read()) == last
    assert REFUSED[text] in pinned.error_log("rewrites")
    assert json.loads((pinned.path / "rewrites/test_run").read_text()) == last


def test_the_place_is_told(pinned: Mount) -> None:
    said = pinned.sh("""echo '{"repeat": 5, "flegs": 1}' > rewrites/test_run""")
    assert said.stderr.endswith("Invalid argument\n")
    lines = pinned.error_log("rewrites").splitlines()
    assert lines[1][lines[2].index("^") :].startswith("flegs")


def test_types_that_cannot_be_run(mounted: Mount) -> None:
    with loaded() as others, others.program("on_event") as program:
        mounted.pin("sample", program)
        said = mounted.sh("cat > sample/test_run", PACKET)
        assert said.stderr.endswith("Operation not supported\n")
        assert "does not support this for this type of program" in mounted.error_log("sample")


def test_a_mount_that_changes_nothing(mounter: Mounter) -> None:
    mount = mounter("-o", "ro")
    with load() as program:
        mount.pin("sample", program)
        said = mount.sh("cat > sample/test_run", PACKET)
        assert said.stderr.endswith("Read-only file system\n")
        assert mount.sh("cat sample/test_run").stdout == ""


@pytest.fixture
def public(mounter: Mounter) -> Mount:
    """A mount for all users."""
    os.umask(0o022)
    mount = mounter("-o", "allow_other")
    mount.sh("chmod 755 .")
    return mount


def test_it_is_roots(public: Mount, programs: Loaded) -> None:
    with programs.program("jumps") as program:
        public.pin("sample", program)
    public.sh("cat > sample/test_run", PACKET)
    os.chmod(public.source / "sample", 0o666)
    eventually("it is theirs", lambda: nobody(public, "cat sample/info").code == 0, 1)
    assert public.sh("stat -c '%A %U' sample/test_run").stdout == "-rw------- root\n"
    for command in ("cat sample/test_run", "printf %20d 1 > sample/test_run"):
        assert nobody(public, command).stderr.endswith(DENIED)


# What takes long.

# Runs of `runs_long` take some hundredths of a second each.
LONG: Mapping[str, Any] = {"data_in": PACKET.hex(), "repeat": 20}


def test_others_are_answered_while_a_program_runs(pinned: Mount) -> None:
    with opened(pinned, "runs_long") as file, ThreadPoolExecutor(1) as pool:
        started = time.monotonic()
        file.write(json.dumps(LONG).encode())
        reading = pool.submit(file.read)
        answered = 0
        while not reading.done():
            (pinned.path / "classify/stats").read_text()
            answered += 1
        told = json.loads(reading.result())
        took = time.monotonic() - started
        assert told["retval"] in (0, 1)
        assert took >= LONG["repeat"] * told["duration_ns"] / 1e9 > 0.2
        assert answered > 5
        assert json.loads((pinned.path / "runs_long/test_run").read_text()) == told


def test_another_open_file_waits_for_the_end(pinned: Mount) -> None:
    given = json.dumps(LONG).encode()
    last = result(pinned, "rewrites", PACKET)
    told = pinned.sh("cat > runs_long/test_run; cat runs_long/test_run runs_long/test_run", given)
    first, second = map(json.loads, told.stdout.splitlines())
    assert first == second
    assert first["duration_ns"] > 0.2e9 / LONG["repeat"]
    assert json.loads((pinned.path / "rewrites/test_run").read_text()) == last
    # So do several, and one goes early.
    (pinned.path / "runs_long/test_run").write_text(json.dumps(LONG))
    early = ["timeout", "0.05", "cat", str(pinned.path / "runs_long/test_run")]
    with ThreadPoolExecutor(4) as pool:
        reading = [pool.submit((pinned.path / "runs_long/test_run").read_text) for _ in range(3)]
        assert run(early).code == 124
        assert len({future.result() for future in reading}) == 1


def test_its_end_can_be_polled_for(pinned: Mount) -> None:
    with opened(pinned, "runs_long") as file:
        file.write(json.dumps(LONG).encode())
        assert not select.select([file], [], [], 0)[0]
        assert select.select([file], [], [], 20)[0]
        start = time.monotonic()
        assert json.loads(file.read())["retval"] in (0, 1)
        assert time.monotonic() - start < SOON


# 4 million runs of a short program.
def test_many_runs_are_waited_for(pinned: Mount) -> None:
    given = {"data_in": PACKET.hex(), "repeat": 4_000_000}
    command = "exec 3<> jumps/test_run; cat >&3; cat <&3"
    told = json.loads(pinned.sh(command, json.dumps(given).encode()).stdout)
    assert told["retval"] == 7 and told["duration_ns"] > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_a_reader(pinned: Mount, number: signal.Signals) -> None:
    command = "exec 3<> runs_long/test_run; cat >&3; echo; exec cat <&3"
    with subprocess.Popen(
        ["bash", "-c", command], cwd=pinned.path, env=ENVIRONMENT,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as reader:  # fmt: skip
        assert reader.stdin and reader.stdout
        reader.stdin.write(json.dumps(LONG).encode())
        reader.stdin.close()
        assert reader.stdout.readline() == b"\n"
        start = time.monotonic()
        reader.send_signal(number)
        assert reader.wait(10) == -number
        assert time.monotonic() - start < SOON


def test_a_reader_with_a_time_limit(pinned: Mount) -> None:
    with opened(pinned, "runs_long") as file:
        file.write(json.dumps(LONG).encode())
        start = time.monotonic()
        limited = subprocess.run(["timeout", "0.1", "cat"], stdin=file, check=False)
        assert limited.returncode == 124
        assert time.monotonic() - start < 0.1 + SOON


def test_a_run_ends_when_another_begins(pinned: Mount) -> None:
    endless = json.dumps({**LONG, "repeat": 4_000_000_000}).encode()
    with opened(pinned, "runs_long") as first, opened(pinned, "runs_long") as second:
        first.write(endless)
        second.write(PACKET)
        assert json.loads(second.read())["retval"] in (0, 1)
        with pytest.raises(OSError, match="canceled"):
            first.read()
        first.write(endless)
    assert pinned.sh(": > runs_long/test_run; cat runs_long/test_run").stdout == ""
    assert "the run was ended" in pinned.error_log("runs_long")


def test_a_program_by_two_pins_runs_once(pinned: Mount) -> None:
    number = json.loads((pinned.path / "runs_long/info.json").read_text())["id"]
    assert pinned.sh(f"echo again > .by-id/programs/{number}/pin").code == 0
    endless = json.dumps({**LONG, "repeat": 4_000_000_000}).encode()
    with ThreadPoolExecutor(2) as pool:  # at the same time
        for _ in pool.map((lambda name: result_of(pinned, name, endless)), ["runs_long", "again"]):
            pass
    assert pinned.sh(": > again/test_run; : > runs_long/test_run").code == 0
    eventually("both have ended", lambda: threads(pinned) == 1, 10)


def result_of(mount: Mount, name: str, given: bytes) -> None:
    """Begin a run that nobody waits for; another may end it meanwhile."""
    with contextlib.suppress(OSError), opened(mount, name) as file:
        file.write(given)


def threads(mount: Mount) -> int:
    return len(os.listdir(f"/proc/{mount.process.pid}/task"))


def test_a_request_without_end(pinned: Mount) -> None:
    with opened(pinned, "rewrites") as file:
        file.write(b'{"data_in": "')
        with pytest.raises(OSError, match="Invalid"):
            for _ in range(20):
                file.write(b"00" * 50_000)
    assert "is longer than" in pinned.error_log("rewrites")


def test_text_that_comes_in_pieces(pinned: Mount) -> None:
    digits = PACKET.hex()
    pinned.sh(f'printf \'{{\n  "data_in": "{digits}",\n  "repeat": 2\n}}\n\' > rewrites/test_run')
    told = json.loads((pinned.path / "rewrites/test_run").read_text())
    assert len(told["data_out"]) > 0
    with opened(pinned, "rewrites") as file:
        file.write(json.dumps({"data_in": digits}).encode())
        file.write(b"\n")
        once = json.loads(file.read())
    assert once["data_out"][:28] == bytes(255 - number for number in range(14)).hex()
    assert pinned.error_log("rewrites") == ""
    with opened(pinned, "rewrites") as file:
        with pytest.raises(OSError, match="Invalid"):
            file.write(b'{"data_on": 1}')
        with pytest.raises(OSError, match="Invalid"):
            os.pwrite(file.fileno(), PACKET, 14)
    said = pinned.sh("printf '{\"repeat\": ' > rewrites/test_run")
    assert "the request is not whole" in pinned.error_log("rewrites"), said
    assert json.loads((pinned.path / "rewrites/test_run").read_text()) == once


def test_many_at_once(pinned: Mount) -> None:
    def attempt(number: int) -> bool:
        packet = bytes([number]) * 29 + b"\0"  # with which it is no JSON
        turned = bytes([255 - number]) * 14 + bytes([number]) * 12
        with opened(pinned, "rewrites") as file:
            try:
                file.write(packet)
            except OSError as error:
                assert error.errno == errno.EBUSY, number
                return False
            assert json.loads(file.read())["data_out"] == turned.hex()
            return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(200))) > 150


def test_nothing_is_left_of_those_who_went_early(pinned: Mount) -> None:
    directory = Path(f"/proc/{pinned.process.pid}/fd")
    before = len(os.listdir(directory))
    for _ in range(4):
        with opened(pinned, "runs_long") as file:
            file.write(PACKET)
    for _ in range(20):
        with opened(pinned, "rewrites") as file:
            file.write(PACKET)
        with opened(pinned, "rewrites") as file, contextlib.suppress(OSError):
            file.write(b"short")
    eventually("all are closed", lambda: len(os.listdir(directory)) <= before, 20)
    eventually("another can run", lambda: ran(pinned), 10)


def ran(mount: Mount) -> bool:
    """Run a program, if there is room for it."""
    try:
        return bool(result(mount, "rewrites", PACKET))
    except OSError:
        return False


def test_the_mount_ends_while_a_program_runs(mounter: Mounter, programs: Loaded) -> None:
    mount = mounter()
    with programs.program("runs_long") as program:
        mount.pin("runs_long", program)
    with opened(mount, "runs_long") as file:
        file.write(json.dumps({**LONG, "repeat": 1_000_000}).encode())
    start = time.monotonic()
    assert mount.end() == 0
    assert time.monotonic() - start < 5


def test_to_look_at_it_runs_nothing(pinned: Mount, programs: Loaded) -> None:
    before = seen(programs)
    last = (pinned.path / "classify/test_run").read_text()
    pinned.sh(
        "grep -r . classify; cat classify/*; file classify/*; find classify -type f | xargs wc"
    )
    pinned.sh(": > classify/test_run; touch classify/test_run; : >> classify/test_run")
    assert seen(programs) == before
    assert (pinned.path / "classify/test_run").read_text() == last
