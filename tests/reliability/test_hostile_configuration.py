"""Configurations, files that they name, and options, of any bytes: one line that says why."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.mounting import COMMAND
from support.network import compile_program
from support.shell import ENVIRONMENT
from support.soaking import Figure, tried

from fusefs.bpf.btf import BtfError
from fusefs.bpf.btf_file import read_btf
from fusefs.configuration import ConfigurationError, read_formats
from fusefs.options import OptionError, choice, split_options
from fusefs.text.jsontext import escape_controls

GOOD = b"""
btf = []
[format."xdp-filter/*"]
key = "ipv4"
value.saddr = "ipv4"
"value.ports[]" = "be"
[format."**"]
percpu = "sum"
value = "struct event"
"""
KEYWORDS = [
    b"[format.",
    b'"',
    b"'''",
    b"[[",
    b"{a = ",
    b"\\u0000",
    b"\n",
    b"\xff",
    b"1e999",
    b"**/",
]


def noise() -> st.SearchStrategy[bytes]:
    """A configuration, with something put in here and there; or any bytes."""
    piece = st.one_of(st.sampled_from(KEYWORDS), st.binary(max_size=4))
    put = st.lists(st.tuples(st.integers(0, len(GOOD)), st.integers(0, 9), piece), max_size=4)

    def changed(changes: list[tuple[int, int, bytes]]) -> bytes:
        text = GOOD
        for at, cut, new in changes:
            text = text[:at] + new + text[at + cut :]
        return text

    return st.one_of(put.map(changed), st.binary(max_size=200))


def reason(file: Path) -> str:
    """What is wrong with a configuration file, in one line; empty when nothing is."""
    try:
        read_formats(str(file))
    except ConfigurationError as error:
        said = str(error)
        assert said.startswith(f"{file}: ") and said == escape_controls(said)
        return said
    return ""


@pytest.mark.soak(short=1)
def test_any_bytes(tmp_path: Path, span: float, figure: Figure) -> None:
    file = tmp_path / "config.toml"

    @settings(
        max_examples=100, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(noise())
    def attempt(text: bytes) -> None:
        file.write_bytes(text)
        reason(file)

    figure("configuration files", 100 * tried(attempt, span))


SLOW = {
    "deep": (b"x = " + b"[" * 4000, "nested too deep"),
    "a key of many parts": (b"[format" + b".a" * 100_000 + b"]", "line 1 has more than 4096"),
    "an integer of many digits": (b"x = " + b"9" * 4090 + b"\n", ""),
    "an integer of too many digits": (b"\n".join([b"x = ["] + [b"9" * 4000] * 2 + [b"]"]), ""),
    "long": (b"#" * 999 + b"\n" * (1 << 20), "longer than 1048576 bytes"),
}


@pytest.mark.parametrize("name", SLOW)
def test_what_would_take_long(tmp_path: Path, name: str) -> None:
    text, why = SLOW[name]
    file = tmp_path / "config.toml"
    file.write_bytes(text)
    assert why in (said := reason(file)) and said


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    """A FIFO to which nobody will ever write."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("pipe", "it is a pipe"),
        ("/dev/zero", "longer than"),
        ("/dev/urandom", "longer than"),
        (".", "Is a directory"),
    ],
)
@pytest.mark.parametrize("named", [False, True], ids=["configuration", "types"])
def test_what_is_no_file(tmp_path: Path, pipe: Path, named: bool, name: str, why: str) -> None:
    path = pipe if name == "pipe" else tmp_path / name
    if named:
        (tmp_path / "config.toml").write_text(f'btf = ["{path}"]')
        path = tmp_path / "config.toml"
    said = reason(path)
    assert said and why in said


@pytest.fixture(scope="module")
def elf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file with types, to be changed."""
    yield compile_program("kinds", tmp_path_factory.mktemp("elf"))


@pytest.mark.soak(short=2)
def test_elf_files_with_bytes_changed(
    elf: Path, tmp_path: Path, span: float, figure: Figure
) -> None:
    whole = elf.read_bytes()
    assert len(read_btf(elf)) > 1
    places = st.one_of(
        st.integers(0, 63), st.integers(len(whole) - 1000, len(whole) - 1), st.integers(0, 1 << 20)
    )
    bytes_ = st.one_of(st.sampled_from([0, 1, 0x7F, 0xFF]), st.integers(0, 255))
    made = tmp_path / "changed.o"
    read = 0

    @settings(max_examples=100, deadline=None, database=None)
    @given(st.lists(st.tuples(places, bytes_), max_size=4), st.integers(0, 2 * len(whole)))
    def attempt(changes: list[tuple[int, int]], length: int) -> None:
        nonlocal read
        data = bytearray(whole)
        for at, byte in changes:
            data[at % len(data)] = byte
        made.write_bytes(data[:length])
        try:
            read_btf(made)
            read += 1
        except (BtfError, OSError):  # both of which the configuration tells
            pass

    figure("ELF files with bytes changed", 100 * tried(attempt, span))
    figure("of them still read", read)


@pytest.mark.soak(short=0.5)
def test_any_options(span: float, figure: Figure) -> None:
    words = st.sampled_from(
        ["ro", "rw", "by_id=", "visible", "config=", "fsname=", "=", ",", "x-", "\\", "requests"]
    )
    text = st.lists(st.one_of(words, st.text(max_size=3)), max_size=6).map("".join)

    @settings(max_examples=100, deadline=None, database=None)
    @given(st.lists(text, max_size=3), text)
    def attempt(given_: list[str], source: str) -> None:
        try:
            options, own = split_options(given_, source)
            choice(own, "by_id"), choice(own, "requests")
        except OptionError:
            return
        assert all(isinstance(option, str) for option in options)

    figure("sets of options", 100 * tried(attempt, span))


@pytest.mark.parametrize(
    "option", [b"\x1b[2J", b"a\nb", b"\xff", b"by_id=\x1b[31m", b"x" * 100_000, b"\xe2\x80\xae"]
)
def test_the_command_says_it_in_one_line(bpffs: Path, place: Path, option: bytes) -> None:
    command: list[str | bytes | Path] = [*COMMAND, bpffs, place, "-o", option]
    result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, timeout=60, check=False)
    said = result.stderr.decode()
    assert (result.returncode, result.stdout) == (2, b"")
    assert said.startswith("bpf-fusefs: ") and said.endswith("\n")
    assert said[:-1].isprintable()
