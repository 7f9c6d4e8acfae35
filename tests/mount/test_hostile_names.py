"""Names and texts made to harm, and children that cannot be shown: the rest goes on as before."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.maps import dump, make_map, u32, u64
from support.mounting import Mount, mounted_bpffs
from support.mounting import mounted as mounted_at

from fusefs.bpf.map import Map, MapType

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ [a-z]+ entries/.*: .+|    .*")
FORGED = "2026-01-01T00:00:00Z write all: all is well"  # no slash: it is a name


@pytest.fixture
def sample(mounted: Mount) -> Map:
    """A pinned map of which the entry 1 is 500."""
    made = mounted.pin("sample", make_map())
    made.update(u32(1), u64(500))
    return made


def check_log(log: str) -> None:
    """The log has the form that it always has, and nothing that a terminal would act on."""
    assert log.endswith("\n")
    for line in log[:-1].split("\n"):
        assert LINE.fullmatch(line), line
        assert line.isprintable(), line
        assert not line.startswith(FORGED)


HOSTILE_NAMES = {
    "no UTF-8": b"\xff",
    "no UTF-8, in the middle": b"1\xc3 \xf0\x9f",
    "escape sequence": b"\x1b[2J\x1b]0;title\x07",
    "forged line": b"x\n" + FORGED.encode(),
    "escape, newline and no UTF-8": b"\x1b[31m\n\r\xff\n" + FORGED.encode(),
    "C1 control": "\x9b2J".encode(),
    "surrogate": b"\xed\xb2\x80",
    "direction override": "\u202e1".encode(),
    "line separator": f"x\u2028{FORGED}".encode(),
    "delete and backspaces": b"x\x7f\x08\x08\x08",
    "long": b"\xff" * 255,
}


@pytest.mark.parametrize("name", HOSTILE_NAMES.values(), ids=list(HOSTILE_NAMES))
def test_a_hostile_name_is_refused_and_does_no_harm(
    mounted: Mount, sample: Map, name: bytes
) -> None:
    text = os.fsdecode(name)
    quoted = "$'" + "".join(f"\\x{byte:02x}" for byte in name) + "'"
    for command in (f"touch {quoted}", f"echo 5 > {quoted}", f"mv 1 {quoted}", f"rm {quoted}"):
        assert mounted.sh(f"cd sample/entries && {command}").code == 1, command
    assert not os.path.lexists(mounted.path / "sample/entries" / text)
    assert dump(sample) == {u32(1): u64(500)}

    listed = mounted.sh("ls -la sample sample/entries && cat sample/error_log && stat sample/*")
    assert (listed.code, listed.stderr) == (0, ""), listed
    assert " error_log\n" in listed.stdout
    log = (mounted.path / "sample/error_log").read_bytes().decode()
    check_log(log)
    assert log.count("create entries/") >= 1
    assert log.count("rename entries/1 to ") == 1

    result = mounted.sh("cd sample && echo > error_log && cat error_log && stat -c %s error_log")
    assert (result.code, result.stdout) == (0, "0\n"), result
    assert mounted.sh("echo 7 > sample/entries/1; cat sample/entries/1").stdout == "7\n"


HOSTILE_TEXTS = {
    "escape sequence": b"\x1b[2J\n",
    "forged line": b"x\n" + FORGED.encode() + b"\n",
    "carriage return": b"x\r" + FORGED.encode() + b"\n",
    "no UTF-8": b"\xff\xfe\n",
    "C1 control": "1\x9b2J\n".encode(),
    "direction override": "1\u202e\n".encode(),
    "line separator": f"x\u2028{FORGED}\n".encode(),
    "NUL": b"1\0\n",
    "field": b'{"\x1b[2J": 1}\n',
    "word": b'{"mode": "\\u001b[2J\\n' + FORGED.encode() + b'"}\n',
}


@pytest.mark.parametrize("text", HOSTILE_TEXTS.values(), ids=list(HOSTILE_TEXTS))
@pytest.mark.parametrize("value", ["u64", "config"])
def test_a_hostile_text_is_refused_and_does_no_harm(
    mounted: Mount, value: str, text: bytes
) -> None:
    sample = mounted.pin("sample", make_map(MapType.ARRAY, value=value, max_entries=1))
    before = dump(sample)
    assert mounted.sh("cat > sample/entries/0", given=text).code == 1
    assert dump(sample) == before
    check_log((mounted.path / "sample/error_log").read_bytes().decode())
    mounted.error_log("sample")


def test_hostile_names_of_directories(mounted: Mount) -> None:
    names = [name for name in HOSTILE_NAMES.values() if len(name) < 200]
    for number, name in enumerate(names):
        os.mkdir(os.fsencode(mounted.source) + b"/" + name)
        mounted.pin(f"{os.fsdecode(name)}/pin{number}", make_map())
    result = mounted.sh("ls -laR . && find . -print0 && du -a .")
    assert (result.code, result.stderr) == (0, "")
    assert set(names) < set(os.listdir(os.fsencode(mounted.path)))
    assert sorted(mounted.path.glob("*/pin*/error_log"))


@pytest.fixture(scope="module", params=["OSError", "RuntimeError"])
def broken(request: pytest.FixtureRequest) -> Iterator[Mount]:
    """A mount with a child here and there whose attributes cannot be had."""
    script = str(Path(__file__).with_name("broken_child_command.py"))
    command = [sys.executable, script, request.param]
    with (
        mounted_bpffs() as bpffs,
        mounted_at(bpffs, command=command, complains=True) as mount,
        make_map() as sample,
    ):
        for number in (1, 13, 14):
            sample.update(u32(number), u64(number))
        mount.pin("sample", sample)
        for name in ("before", "broken", "directory"):
            os.mkdir(bpffs / name)
        yield mount


@pytest.mark.parametrize(
    ("directory", "bad"), [(".", "broken"), ("sample", "error_log"), ("sample/entries", "13")]
)
def test_one_child_does_not_spoil_the_listing(broken: Mount, directory: str, bad: str) -> None:
    plain = broken.sh(f"ls {directory}")
    assert (plain.code, plain.stderr) == (0, "")
    names = plain.stdout.split()
    assert bad in names
    assert len(names) >= 3
    detailed = broken.sh(f"cd {directory} && ls -la")
    assert (detailed.code, detailed.stderr) == (
        1,
        f"ls: cannot access '{bad}': Input/output error\n",
    )
    shown = {line.split()[-1]: line[0] for line in detailed.stdout.splitlines()[1:]}
    assert shown.pop(bad) in "-d?"
    assert "?" not in shown.values()
    assert set(names) < set(shown) | {bad}


def test_the_others_are_as_before(broken: Mount) -> None:
    assert broken.sh("ls -laR .").code == 1
    assert (broken.path / "sample/entries/14").read_text() == "14\n"
    assert "max_entries: 64\n" in (broken.path / "sample/info").read_text()
    assert os.listdir(broken.path / "directory") == []
    assert broken.process.poll() is None
