"""Ring buffers that users write and programs drain: `push`."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import pytest
from support.mounting import Mount
from support.rings import SMALL, Rings, rings
from support.running import run
from support.shell import Result

from fusefs.bpf.ring_buffer import HEADER


@pytest.fixture
def made(mounted: Mount) -> Iterator[Rings]:
    """The programs and their rings, shown by a mount."""
    with rings(mounted.source) as loaded:
        yield loaded


def received(made: Rings) -> list[bytes]:
    """What a program drains from the ring that users write."""
    run(made.program("drain"))
    records = made.unread("large")
    made.consume(len(records), "large")
    return records


@pytest.mark.parametrize(
    ("text", "records"),
    [
        ("01020304", [b"\1\2\3\4"]),
        ('"01020304"', [b"\1\2\3\4"]),
        ("0a 0B 0c", [b"\n\x0b\x0c"]),
        ('""', [b""]),
        ("61\n6263\n\n646566", [b"a", b"bc", b"def"]),
        ("", []),
        ("00" * 3000, [bytes(3000)]),
    ],
)
def test_programs_receive_what_is_pushed(
    mounted: Mount, made: Rings, text: str, records: list[bytes]
) -> None:
    result = mounted.sh("cat > maps/user/push", given=f"{text}\n".encode())
    assert (result.code, result.stderr) == (0, ""), mounted.error_log("maps/user")
    assert received(made) == records


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("0", "expected hexadecimal digits, two for each byte, got '0'"),
        ("61\nxx", "expected hexadecimal digits, two for each byte, got 'xx'"),
        ("[1, 2]", "got an array"),
        ("{}", "got an object"),
    ],
)
def test_what_is_no_record_is_refused(mounted: Mount, made: Rings, text: str, reason: str) -> None:
    result = mounted.sh("cat > maps/user/push", given=f"{text}\n".encode())
    assert (result.code, "Invalid argument" in result.stderr) == (1, True)
    assert reason in mounted.error_log("maps/user")
    assert received(made) == []


def test_a_full_ring_takes_none_of_many(mounted: Mount, made: Rings) -> None:
    half = "00" * (SMALL // 2 - HEADER) + "\n"
    assert mounted.sh("cat > maps/user/push", given=half.encode()).code == 0
    result = mounted.sh("cat > maps/user/push", given=f"61\n62\n{half}".encode())
    assert result.stderr.endswith("No space left on device\n")
    assert "the ring has room for 2048 bytes, and this takes 2080" in mounted.error_log("maps/user")
    assert mounted.sh("cat > maps/user/push", given=half.encode()).code == 0
    assert mounted.sh("echo 61 > maps/user/push").stderr.endswith("No space left on device\n")
    assert received(made) == [bytes(SMALL // 2 - HEADER)] * 2
    assert mounted.sh("echo 61 > maps/user/push").code == 0
    assert received(made) == [b"a"]


def test_typed_records_are_pushed(mounted: Mount, made: Rings) -> None:
    formats = b"value: struct event\nvalue.address: ipv4\n"
    assert mounted.sh("cat > maps/user/format", given=formats).code == 0
    text = b'{"address": "10.0.0.1", "port": 443}\n{sequence: 7,\n name: long}\n'
    lines = b'{"address": "10.0.0.1", "port": 443}\n{sequence: 7, name: "long"}\n616263\n'
    assert mounted.sh("cat > maps/user/push", given=lines).code == 0, mounted.error_log("maps/user")
    first, second, third = received(made)
    assert first == bytes(8) + bytes([10, 0, 0, 1]) + (443).to_bytes(2, "little") + bytes(10)
    assert second == (7).to_bytes(8, "little") + bytes(6) + b"long" + bytes(6)
    assert third == b"abc"
    assert mounted.sh("cat > maps/user/push", given=text).code == 1
    assert received(made) == []


def test_a_number_alone_is_no_record(mounted: Mount, made: Rings) -> None:
    """It does not tell how many bytes it has, and its digits are not taken for others."""
    for name, text in (("uint", "10"), ("be", "1234"), ("ktime", "123456789012345678901234")):
        assert mounted.sh(f"echo 'value: {name}' > maps/user/format").code == 0
        assert mounted.sh(f"echo {text} > maps/user/push").stderr.endswith("Invalid argument\n")
    mounted.sh("echo 'value: uint' > maps/user/format; echo 10 > maps/user/push")
    assert "hexadecimal digits, two for each byte, in quotes" in mounted.error_log("maps/user")
    assert received(made) == []
    assert mounted.sh("echo '\"0a00\"' > maps/user/push").code == 0
    assert received(made) == [b"\n\0"]


def test_what_cannot_be_done(mounted: Mount, made: Rings) -> None:
    assert mounted.sh("cat maps/user/push") == Result(0, "", "")  # root may, and it is empty
    for command in ("rm maps/user/push", "echo 1 > maps/small/records"):
        result = mounted.sh(command)
        assert result.stderr.endswith(("Permission denied\n", "Operation not permitted\n"))
    with pytest.raises(OSError) as caught:
        os.open(mounted.path / "maps/small/records_pipe", os.O_RDWR)
    assert caught.value.errno == errno.EACCES
