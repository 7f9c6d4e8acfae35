"""What is wrong with a copy is told with its file, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.maps import make_map
from support.mounting import COMMAND, Mount
from support.restoring import (
    TOOLS,
    config,
    edited,
    ours,
    replace,
    restore,
    second_line,
)
from support.shell import run

from fusefs.bpf.cpus import possible_cpus

RDONLY_PROG = 1 << 7  # BPF_F_RDONLY_PROG
each_tool = pytest.mark.parametrize("tool", TOOLS)
MANY = 4096  # entries that an LRU may have before it throws any out


# Faults: each is told with its file, and leaves nothing behind.


def written(name: str, text: str | bytes) -> Callable[[Path], None]:
    """Writes a file anew."""
    return lambda copy: replace(copy / name, text)


def cut(copy: Path) -> None:
    """Truncates `entries.jsonl` within its last line."""
    file = copy / "entries.jsonl"
    replace(file, file.read_bytes()[:-20])


def emptied(copy: Path) -> None:
    """Has no contents any more, though `count` says that there were."""
    replace(copy / "entries.jsonl", "")
    shutil.rmtree(copy / "entries")


def all_empty(copy: Path) -> None:
    """As tar(1) and rsync(1) leave it where `entries/` was left out."""
    emptied(copy)
    replace(copy / "count", "")


def nan_file(copy: Path) -> None:
    """`entries/` alone, and in it something that is no key."""
    replace(copy / "entries.jsonl", "")
    replace(copy / "entries/zero", "{}\n")


def empty_file(copy: Path) -> None:
    """`entries/` alone, and in it an empty file."""
    replace(copy / "entries.jsonl", "")
    replace(copy / "entries/1", "")


def no_file(name: str) -> Callable[[Path], None]:
    """Removes a file."""
    return lambda copy: (copy / name).unlink()


def pipe(name: str) -> Callable[[Path], None]:
    """Has a pipe in place of a file, whose reader would wait."""

    def make(copy: Path) -> None:
        (copy / name).unlink()
        os.mkfifo(copy / name)

    return make


def more_cpus(copy: Path) -> None:
    """As a map per CPU on a machine with one CPU more."""
    edited(type="percpu_hash")(copy)
    value = json.loads((copy / "entries/0").read_text())
    values = [value] * (possible_cpus() + 1)
    replace(copy / "entries.jsonl", json.dumps({"key": 0, "value": values}) + "\n")


def other_btf(copy: Path) -> None:
    """The BTF of other maps: where this had the ids of its types are others of other sizes."""
    from fusefs.bpf.btf_build import BtfBuilder  # noqa: PLC0415

    types = BtfBuilder()
    size, key = json.loads((copy / "info.json").read_text())["btf_value_type_id"], 0
    for number in range(1, size + 1):
        key = (
            types.integer("__u32", 4) if number < size else types.struct("other", 28, [("a", 1, 0)])
        )
    assert key == size
    replace(copy / "btf", types.build())


NO_MAP = "info.json: the kernel makes no map of this type with these sizes, flags and types"
FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a line is cut": (cut, "entries.jsonl:3: the text ends within a string"),
    "a line is wrong": (second_line, r"entries.jsonl:2: value.mode: expected one of MODE_OFF.*"),
    "no lines": (emptied, "count: it says 3, and the copy has no entries"),
    "nothing tells": (all_empty, "config: nothing tells what was in it: tar and rsync .*"),
    "no number": (written("count", "3\x1b[2J"), "count: it is no number"),
    "no key": (nan_file, "entries/zero: .*zero.*"),
    "no value": (empty_file, "entries/1: it is empty: .*"),
    "no info": (written("info.json", "{"), "info.json: it is no JSON"),
    "info is gone": (no_file("info.json"), "info.json: it is missing, .* the copy of a pin"),
    "an array": (written("info.json", "[]"), "info.json: it is no JSON object"),
    "deep": (written("info.json", "[" * 200_000), "info.json: it is no JSON"),
    "a pipe": (pipe("info.json"), "info.json: it is no regular file"),
    "a pipe of entries": (pipe("entries.jsonl"), "entries.jsonl: it is no regular file"),
    "an unknown type": (edited(type="hush"), "info.json: type: this kernel knows no 'hush'"),
    "a wrong type": (edited(type=["hash"]), r"info.json: type cannot be \"\['hash'\]\""),
    "an unknown flag": (
        edited(map_flags=["no_such"]),
        "info.json: map_flags: this kernel knows no .*",
    ),
    "flags": (edited(map_flags="rdonly"), "info.json: map_flags cannot be 'rdonly'"),
    "other flags": (edited(map_flags=["segv_on_fault"]), NO_MAP),
    "no size": (edited(key_size=None), "info.json: key_size cannot be 'None'"),
    "true": (edited(key_size=True), "info.json: key_size cannot be 'True'"),
    "negative": (edited(max_entries=-1), "info.json: max_entries cannot be '-1'"),
    "text": (edited(max_entries="8"), "info.json: max_entries cannot be '8'"),
    "larger than numbers": (edited(max_entries=1 << 32), "info.json: max_entries cannot be .*"),
    "huge": (edited(max_entries=(1 << 32) - 1, btf_id=0, value_size=1 << 30), "info.json: the .*"),
    "none at all": (edited(max_entries=0), NO_MAP),
    "another size": (edited(value_size=27), NO_MAP),
    "a long name": (edited(name="a" * 16), "info.json: name cannot be 'aaaaaaaaaaaaaaaa'"),
    "a strange name": (edited(name="a/b"), "info.json: name cannot be 'a/b'"),
    "a card's": (edited(ifindex=3), "info.json: it was in a network card.*"),
    "no BTF": (no_file("btf"), "btf: it is missing, and the map had types"),
    "noise for BTF": (written("btf", bytes(range(100))), "btf: the kernel refuses it: .*"),
    "empty BTF": (written("btf", ""), "btf: the kernel refuses it: .*"),
    "another BTF": (other_btf, "btf: it is not the map's: its types are __u32, struct other"),
    "no type of it": (edited(btf_value_type_id=4000), NO_MAP),
    "no format": (written("format", "key: fine\n"), "format: .*fine.*"),
    "another format": (
        written("format", "percpu: sum\n"),
        "format: percpu: the map is not per CPU",
    ),
    "more CPUs": (
        more_cpus,
        r"entries.jsonl:1: value: expected \d+ elements, one for each CPU, got \d+",
    ),
    "too small": (edited(max_entries=2), "entries.jsonl: 2 of 3 entries set, .*: the map is full"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_leaves_nothing(mounted: Mount, tmp_path: Path, fault: str) -> None:
    copy = config(mounted, tmp_path)
    edit, pattern = FAULTS[fault]
    edit(copy)
    result = restore(tmp_path, mounted.source)
    assert (result.code, result.stdout) == (1, "")
    assert re.fullmatch(f"bpf-fusefs: {tmp_path}/fw/.*{pattern}\n", result.stderr), result.stderr
    assert "fw" not in os.listdir(mounted.source)
    assert ours() == 0


def test_where_nothing_can_be_pinned(mounted: Mount, tmp_path: Path) -> None:
    """What is in the way of a pin is told, and the map that was made for it goes."""
    config(mounted, tmp_path)
    in_the_way = "fw/config: what is on the way is no directory\n"
    (mounted.source / "fw").symlink_to("elsewhere")
    assert restore(tmp_path, mounted.source).stderr.endswith(in_the_way)
    (mounted.source / "fw").unlink()
    mounted.pin("fw", make_map()).close()
    assert restore(tmp_path, mounted.source).stderr.endswith(in_the_way)
    (mounted.source / "fw").unlink()
    (mounted.source / "fw").mkdir()
    (mounted.source / "fw/config").mkdir()
    assert restore(tmp_path, mounted.source).stderr.endswith("fw/config: what is there is no pin\n")
    (tmp_path / "fw").rename(tmp_path / "f.w")
    assert restore(tmp_path, mounted.source).stderr.endswith(
        "config: bpffs has no names with dots\n"
    )
    assert ours() == 0


def test_a_bpffs_that_cannot_be_written(mounted: Mount, tmp_path: Path) -> None:
    config(mounted, tmp_path)
    run(["mount", "-o", "remount,ro,bind", mounted.source])
    try:
        result = restore(tmp_path, mounted.source)
        assert result.stderr.endswith("fw/config: cannot pin: Read-only file system\n")
        assert (result.code, ours()) == (1, 0)
    finally:
        run(["mount", "-o", "remount,rw,bind", mounted.source])


def test_a_command_line_that_is_wrong(bpffs: Path, tmp_path: Path) -> None:
    cases: list[tuple[list[str | Path], int, str]] = [
        ([], 2, "the following arguments are required: DIR; see 'bpf-fusefs restore --help'"),
        ([tmp_path, bpffs, "more"], 2, "unrecognized arguments: more; see .*"),
        (["--no-such", tmp_path], 2, "unrecognized arguments: --no-such; see .*"),
        ([tmp_path / "none", bpffs], 1, f"{tmp_path}/none: there is no such directory"),
        ([tmp_path, tmp_path], 1, f"{tmp_path}: it is not a bpffs: mount one with .*"),
        ([tmp_path, tmp_path / "none"], 1, f"{tmp_path}/none: No such file or directory"),
        ([tmp_path, bpffs], 1, f"{tmp_path}: there is no copy of a pin in it"),
    ]
    for arguments, code, words in cases:
        result = restore(*arguments)
        assert (result.code, result.stdout) == (code, "")
        assert re.fullmatch(f"bpf-fusefs: {words}\n", result.stderr), result


def test_as_a_command(mounted: Mount, tmp_path: Path) -> None:
    """In a process of its own, as anybody runs it."""
    config(mounted, tmp_path)
    command = [*COMMAND, "restore"]
    first = run([*command, tmp_path, mounted.source])
    assert (first.code, first.stdout, first.stderr) == (0, "fw/config: made, 3 entries\n", "")
    second = run([*command, tmp_path, mounted.source])
    assert (second.code, second.stdout, second.stderr) == (0, "fw/config: there, left alone\n", "")
    helped = run([*command, "--help"])
    assert (helped.code, helped.stderr) == (0, "")
    assert helped.stdout.startswith("usage: bpf-fusefs restore [-p] [--force] DIR [BPFFS]\n")
    wrong = run([*command, tmp_path / "none", mounted.source])
    assert (wrong.code, wrong.stdout) == (1, "")
    assert restore(tmp_path / "fw/config", mounted.source).stdout == "config: made, 3 entries\n"
    assert restore(tmp_path / "fw", mounted.source / "fw").stdout == "config: there, left alone\n"
