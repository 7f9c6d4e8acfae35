"""`info` and `info.json`: what they say is what the kernel says, and what others make of it."""

from __future__ import annotations

import ctypes
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from support.maps import SIX, make_map, pin
from support.programs import load
from support.shell import checked

from fusefs.bpf import syscall
from fusefs.bpf.bpffs import Directory
from fusefs.bpf.map import Map, MapType
from fusefs.bpf.program import Program
from fusefs.tree.info import describe, json_line, to_yaml
from fusefs.tree.map_view import MapView


def info_of(bpf_map: Map) -> dict[str, Any]:
    """What is said of a map; YAML and JSON say the same."""
    info = describe(bpf_map, MapView(bpf_map))
    assert yaml.safe_load(to_yaml(info)) == info
    assert json.loads(json_line(info)) == info
    return dict(info)


@pytest.mark.parametrize("kind", SIX, ids=lambda kind: kind.name.lower())
def test_a_map_as_bpftool_has_it(bpffs: Path, kind: MapType) -> None:
    with make_map(kind, value="pair", max_entries=5, name="a_name") as made:
        pin(bpffs / "sample", made)
        told = json.loads(checked("bpftool", "-j", "map", "show", "pinned", bpffs / "sample"))
        info = info_of(made)
        assert info["type"] == told["type"] == kind.name.lower()
        assert info["name"] == told["name"] == "a_name"
        assert info["id"] == told["id"]
        assert (info["key_size"], info["value_size"]) == (told["bytes_key"], told["bytes_value"])
        assert info["max_entries"] == told["max_entries"] == 5
        assert info["memlock"] == int(told["bytes_memlock"])
        assert info["btf_id"] == told["btf_id"]
        assert info["frozen"] == bool(told["frozen"])
        assert (info["key_type"], info["value_type"]) == ("__u32", "struct pair")


def test_a_map_as_fdinfo_has_it() -> None:
    with make_map() as made:
        made.freeze()
        info = info_of(made)
        fdinfo = made.fdinfo()
        assert info["frozen"] is True
        assert fdinfo["frozen"] == "1"
        assert {name for name in fdinfo if name not in info} <= {"map_type", "map_id"}
        for name in ("key_size", "value_size", "max_entries", "memlock"):
            assert info[name] == int(fdinfo[name], 0)


def test_a_map_without_types() -> None:
    with make_map(key=4, value=8, flags=1) as made:
        info = info_of(made)
        assert (info["key_type"], info["value_type"], info["btf_id"]) == (None, None, 0)
        assert info["map_flags"] == ["no_prealloc"]


def test_a_kernel_with_shorter_structures(monkeypatch: pytest.MonkeyPatch) -> None:
    """An older kernel fills less of them, and says how much."""
    call = syscall.bpf

    def older(command: syscall.Command, arguments: ctypes.Structure) -> int:
        if isinstance(arguments, syscall.InfoArguments):
            arguments.info_len = min(arguments.info_len, 80)
        return call(command, arguments)

    with make_map() as made, load() as program:
        monkeypatch.setattr(syscall, "bpf", older)
        with Map.from_id(made.info.id) as bpf_map:
            assert describe(bpf_map, MapView(bpf_map))["max_entries"] == 64
            assert {"map_extra", "btf_id"} & bpf_map.fields().keys() == {"btf_id"}
        with Program.from_id(program.info.id) as old:
            told = describe(old, None)
            assert told["name"] == "sample"
            assert not {"attach_btf_id", "btf_id"} & told.keys()
            assert (told["map_ids"], told["id"]) == ([], program.info.id)


def test_a_type_that_is_newer_than_this_program() -> None:
    with make_map() as made:
        view = MapView(made)
        view.traits = None  # as it is for a type that has no row in the table
        assert "hash are newer than this program" in str(describe(made, view)["entries"])


def test_the_hash_of_a_frozen_array() -> None:
    with make_map(MapType.ARRAY) as made:
        assert "hash" not in info_of(made)
        made.freeze()
        digest = made.sha256()
        if digest is None:
            pytest.skip("this kernel has no hashes of maps")
        assert info_of(made)["hash"] == digest.hex()


def test_a_pin_tells_what_it_is(bpffs: Path) -> None:
    directory = Directory(str(bpffs))
    with make_map() as made:
        directory.pin("sample", made)
        with directory.open_pin("sample", directory.stat("sample").st_ino) as opened:
            assert describe(opened, None)["id"] == made.info.id


HOSTILE = [
    "", " ", "true", "No", "null", "~", "1", "0x1f", "1e3", "1_000", "0o7", "0b1", ".5", ".inf",
    "-.INF", ".NaN", "2024-01-01", "12:30:45", "a: b", "a #b", "- a", "? a", "& a", "*a", "!a",
    "|", ">", "%a", "@a", "`a", "[a]", "{a: 1}", "a, b", "'a'", '"a"', "a\nb", "a\tb", "\x85",
    "\u2028", "\x7f", "\0", "---", "...", "a:", ":a", "=", "<<", "a ", " a", "é", "\U0001f600",
    "\ufeff", "struct x *", "unsigned int[3]", "y", "OFF", "a  b", "a\\b", "0.1", "1.", "+1",
    "infinity", "nan", "E5", "a_1/b.c+d-e",
]  # fmt: skip

text = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(HOSTILE)
number = st.integers(-(2**63), 2**64) | st.booleans() | st.none()
values = text | number | st.lists(text | number, max_size=4)
names = st.from_regex(r"[a-z_][a-z0-9_]*", fullmatch=True) | text


def same(value: object) -> str:
    """A form in which 1 and True differ."""
    return repr(value)


@given(st.dictionaries(names, values, max_size=5))
@example({name: name for name in HOSTILE})
@example({name: [name] for name in HOSTILE})
def test_yaml_reads_what_was_written(info: dict[str, Any]) -> None:
    written = to_yaml(info)
    assert same(yaml.safe_load(written) or {}) == same(info)
    assert written.count("\n") == len(written.splitlines()) == len(info)


@given(st.dictionaries(names, values, max_size=5))
def test_json_reads_what_was_written(info: dict[str, Any]) -> None:
    assert same(json.loads(json_line(info))) == same(info)
