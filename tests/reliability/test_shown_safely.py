"""Names made to harm, wherever a name can come from: `info` stays YAML, `types.h` C, a graph one,
and no script gets into a picture."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import unicodedata
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support.maps import make_map, u32, u64
from support.mounting import Mount
from support.shell import run
from support.waiting import eventually

from fusefs.bpf.btf import Kind
from fusefs.bpf.btf_build import BtfBuilder
from fusefs.bpf.btf_object import BtfObject
from fusefs.bpf.map import Map, MapType

NAMES = {
    "escape sequence": b"\x1b[2J\x1b]0;title\x07",
    "script": b'"><script>alert(1)<script>',
    "attribute": b"' onload='alert(1)",
    "CDATA": b"]]><![CDATA[",
    "link": b"javascript:alert(1)",
    "entity": b"&lt;&#x1b;&bad;",
    "format": b"%s%n%(x)s{0}",
    "backslashes": b"\\N\\l\\x1b\\",
    "lines": b"a\nb: c\r\n- d",
    "not UTF-8": b"\xff\xfe\x80",
    "direction": "\u202egnp.\u2066".encode(),
    "C1 and separators": "\x9b2J\x85\u2028\u2029".encode(),
    "not XML": "\ufffe\uffff\U0001ffff\ufeff".encode(),
    "YAML": b"!!python_object {a: [*b, &c]} # d",
    "record": b"{a|<b> c}",
    "dots and percents": b"%2e%2e%2f%00",
}
# Letters to the kernel, which may be in names of types (isalnum in lib/ctype.c), and no UTF-8.
LETTERS = b"a\xc0\xff"
TAG = '\x1b[2J*/ "?? \\ \n</script>'
# Holds an object that it has by its id, under a name that is the first argument, till it is told.
HOLDER = """
import ctypes, sys
from fusefs.bpf.map import Map
ctypes.CDLL(None).prctl(15, sys.argv[1].encode(errors="surrogateescape"))
with Map.from_id(int(sys.argv[2])):
    print("holding", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def holder(held: Map, name: bytes) -> Iterator[None]:
    """A process of this name that has a map open."""
    command: list[bytes | str] = [sys.executable, "-c", HOLDER, name[:15], str(held.info.id)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"holding\n"
        try:
            yield
        finally:
            process.communicate()


def acted_on(character: str) -> bool:
    """Whether a terminal, or who reads lines, does something on it."""
    turns = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    return (
        unicodedata.category(character) in ("Cc", "Zl", "Zp")
        or unicodedata.bidirectional(character) in turns
    )


def check_texts(directory: Path) -> None:
    """`info` is YAML, which says what `info.json` does, and nothing that a terminal acts on."""
    text = (directory / "info").read_bytes().decode()
    told = json.loads((directory / "info.json").read_bytes())
    assert yaml.safe_load(text) == told
    assert not any(map(acted_on, text.replace("\n", ""))), text
    assert len(text.splitlines()) == len(told) == len(text.split("\n")) - 1


def check_pictures(directory: Path) -> None:
    """The graph is one, and the picture has no scripts, and leads to nowhere else."""
    drawn = run(["dot", "-Tsvg"], given=(directory / "graph.dot").read_bytes())
    assert (drawn.code, drawn.stderr) == (0, "")
    picture = (directory / "graph.svg").read_bytes()
    for element in ET.fromstring(picture).iter():
        assert element.tag.rpartition("}")[2] in {"svg", "g", "a", "title", "text", "polygon",
            "path", "ellipse", "polyline", "style", "defs", "linearGradient", "stop",
        }, element.tag  # fmt: skip
        for name, value in element.attrib.items():
            plain = name.rpartition("}")[2].lower()
            assert not plain.startswith("on"), (name, value)
            assert plain != "href" or value.startswith(("../", "./", "#", ".by-id/")), value
    assert not set(picture) & (set(range(32)) - set(b"\n\t\r"))


def nasty_type(types: BtfBuilder) -> int:
    """A struct whose name, member and enumerators have letters that are none, and with a tag."""
    values = [("EEE1", 0), ("EEE2", 1)]
    made = types.struct("SSS", 4, [("MMM", types.enum("TTT", 4, values), 0)])
    types.decl_tag(TAG, made)
    types.alias(Kind.TYPE_TAG, made, TAG)
    return made


def test_names_everywhere(mounted: Mount, tmp_path: Path) -> None:
    pins = []
    for number, given in enumerate(NAMES.values()):
        name = given.replace(b".", b"_")  # bpffs takes no dots
        os.mkdir(os.fsencode(mounted.source) + b"/" + name)
        pins.append(f"{os.fsdecode(name)}/{os.fsdecode(name)}{number}")
        mounted.pin(pins[-1], make_map()).close()
    types = BtfBuilder()
    made, number_type = nasty_type(types), types.integer("int", 4, signed=True)
    blob = types.build()
    for plain in (b"SSS\0", b"MMM\0", b"TTT\0"):
        blob = blob.replace(plain, LETTERS + b"\0")
    for number, plain in enumerate((b"EEE1\0", b"EEE2\0")):
        blob = blob.replace(plain, LETTERS + bytes([0xD8 + number, 0]))
    with BtfObject.load(blob) as loaded:
        bpf_map = mounted.pin("typed", Map.create(
            MapType.ARRAY, key_size=4, value_size=4, max_entries=2, btf=loaded,
            key_type=number_type, value_type=made,
        ))  # fmt: skip
    with contextlib.ExitStack() as stack:
        stack.enter_context(bpf_map)
        bpf_map.update(u32(1), u32(1))
        for comm in NAMES.values():
            stack.enter_context(holder(bpf_map, comm))
        directory = mounted.path / "typed"
        for pin in [*pins, "typed"]:
            check_texts(mounted.path / pin)
        holders = json.loads((directory / "info.json").read_text())["holders"]
        assert len(holders) > len(NAMES)
        check_pictures(directory)
        check_pictures(mounted.path / ".by-id")
    # Both enumerators look the same; the second is a number, so that it can be written.
    shown = LETTERS.decode(errors="replace")
    assert json.loads((directory / "entries/0").read_text()) == {shown: shown + "\ufffd"}
    assert json.loads((directory / "entries/1").read_text()) == {shown: 1}
    header = tmp_path / "types.h"
    header.write_bytes((directory / "types.h").read_bytes())
    compiled = run(["clang", "-Wall", "-Wextra", "-fsyntax-only", "-x", "c", "-std=gnu11", header])
    assert (compiled.code, compiled.stderr) == (0, "")


def test_the_error_log_has_a_line_for_each(mounted: Mount, sample: Map) -> None:
    entries = os.fsencode(mounted.path / "sample/entries") + b"/"
    for name in NAMES.values():
        with pytest.raises(OSError, match="Invalid"):
            os.open(entries + name, os.O_CREAT | os.O_WRONLY)
        with pytest.raises(OSError, match="Invalid"):
            Path(mounted.path / "sample/entries/1").write_bytes(name + b"\n")
    log = mounted.error_log("sample")
    assert log.count("\n") == len(log.splitlines())
    assert not any(map(acted_on, log.replace("\n", "")))
    assert sample.lookup(u32(1)) == u64(500)
    eventually("nothing to complain of", lambda: not mounted.complaints())
