"""Global variables of a program as files, read and written while it runs."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.maps import dump, make_map, u32
from support.mounting import Mount
from support.network import compile_program
from support.running import run, running
from support.sections import Loaded, load, section_map
from support.shell import Result
from support.standing import standing
from support.waiting import eventually

from fusefs.bpf.map import Map, MapType

TIMES = 1000
LOOPS = 256  # see globals.bpf.c
KEY = u32(0)
# Where the program's variables are, as its source has them.
BSS = {"before": 0, "counter": 8, "after": 16, "whole": 24, "above": 32, "tick": 33, "below": 34}
LIMITS = {"soft": 10, "hard": 20, "level": 3, "ports": {"first": 80, "last": 443}}
LIMITS |= {"low": 5, "middle": 1000, "name": "web"}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The object file of the program."""
    return compile_program("globals", tmp_path_factory.mktemp("programs"))


@pytest.fixture
def loaded(mounted: Mount, compiled: Path) -> Iterator[Loaded]:
    """The program, shown by a mount."""
    made = load(mounted, compiled)
    with made.program:
        yield made


def value_of(bpf_map: Map, offset: int, size: int) -> int:
    """An unsigned number in a section."""
    return int.from_bytes(bpf_map.lookup(KEY)[offset:][:size], "little")


def sh(loaded: Loaded, command: str) -> Result:
    """Run a command among the maps."""
    return loaded.mount.sh(f"cd maps; {command}")


def test_variables_are_shown(loaded: Loaded) -> None:
    shown = {
        "globals_bss": dict.fromkeys([*BSS, "beside", "count.calls"], 0)
        | {"triple": {"left": 0, "count": 0, "right": 0}, "pointer": "0x0"},
        "globals_data": {
            "threshold": 1000, "mode": "MODE_WATCH", "enabled": True, "offsets": [1, -2, 3, -4],
            "label": "first", "limits": LIMITS, "hidden": 7,
        },
        "globals_rodata": {"limit": 42, "version": "v1"},
        "_data_settings": {"setting": 1},
        "_data_expected": {
            "expected": {"counter": 0, "lost": 0, "torn": 0, "count": 0, "tick": 0}
        },
    }  # fmt: skip
    assert sorted(os.listdir(loaded.mount.path / "maps")) == sorted(shown)
    for section, variables in shown.items():
        directory = loaded.variable(section, "")
        read = {name: json.loads((directory / name).read_text()) for name in os.listdir(directory)}
        assert read == variables
        whole = json.loads(loaded.variable(section, "../entries/0").read_text())
        assert whole == variables
    assert run(loaded.program) == 7 + 42 + 1 + ord("v")
    assert loaded.variable("globals_bss", "counter").read_text() == f"{LOOPS}\n"


def test_with_the_tools_of_every_day(loaded: Loaded) -> None:
    assert sh(loaded, "ls globals_rodata/vars").stdout == "limit\nversion\n"
    assert sh(loaded, "cat globals_data/vars/{mode,enabled}").stdout == '"MODE_WATCH"\ntrue\n'
    found = sh(loaded, "grep -r first . --include=label").stdout
    assert found == './globals_data/vars/label:"first"\n'
    assert sh(loaded, "jq -c .ports globals_data/vars/limits").stdout == '{"first":80,"last":443}\n'
    told = sh(loaded, "stat -c '%A %h %s' globals_data/vars{,/threshold} globals_rodata/vars/limit")
    assert told.stdout == "drwx------ 2 0\n-rw------- 2 5\n-r-------- 2 3\n"
    assert sh(loaded, "find . -path '*/vars/*' -type f -size -4096c -links 2 | wc -l").stdout == (
        "22\n"
    )
    differing = sh(
        loaded, "for f in */vars/*; do [ $(stat -c %s $f) = $(wc -c < $f) ] || ls $f; done"
    )
    assert differing == Result(0, "", "")


def test_no_update_of_the_program_is_lost(loaded: Loaded) -> None:
    """The program changes what lies between the variables that are written, without atomics."""
    python = ("after", "below", "whole")
    files = {name: loaded.variable("globals_bss", name) for name in python}
    rounds = 100
    with running(loaded.program, TIMES) as turns:
        for number in range(1, rounds + 1):
            texts = {"after": number << 32, "below": number, "whole": -(number % 2) % (1 << 64)}
            for name, text in texts.items():
                files[name].write_text(f"{text}\n")
                assert files[name].read_text() == f"{text}\n"
        result = sh(
            loaded,
            f"cd globals_bss/vars; for i in {{1..{rounds}}}; do echo $i > before; echo $i > above;"
            ' echo $i > beside; echo "{left: $i, right: $((i * 70000))}" > triple; done',
        )
        assert (result.code, result.stderr) == (0, ""), result
    done = turns.count * TIMES * LOOPS
    assert turns.count * TIMES > rounds
    value = loaded.map("globals_bss").lookup(KEY)
    before, counter, after, whole, *bytes_, left, count, right = struct.unpack_from(
        "<QQQQBBBBIII", value
    )
    assert (counter, bytes_[1], count) == (done, done % 256, done % (1 << 32))
    assert (before, after, whole) == (rounds, rounds << 32, 0)
    assert (bytes_[0], *bytes_[2:]) == (rounds, rounds, rounds)
    assert (left, right) == (rounds, rounds * 70000)
    # The program has looked for it at every step, and for halves of what was written to `whole`.
    seen = json.loads(loaded.variable("_data_expected", "expected").read_text())
    assert (seen["counter"], seen["lost"], seen["torn"]) == (done, 0, 0)


@pytest.mark.parametrize(
    ("section", "name", "text", "shown"),
    [
        ("globals_data", "threshold", "0xffffffffffffffff", 2**64 - 1),
        ("globals_data", "mode", "MODE_BLOCK", "MODE_BLOCK"),
        ("globals_data", "mode", "0", "MODE_OFF"),
        ("globals_data", "enabled", "false", False),
        ("globals_data", "offsets", "[4, 3, 2, -1]", [4, 3, 2, -1]),
        ("globals_data", "label", "other", "other"),
        ("globals_data", "hidden", "8", 8),
        ("globals_data", "limits", '{"soft": 11}', LIMITS | {"soft": 11}),
        ("globals_data", "limits", "{low: 0, level: 255}", LIMITS | {"low": 0, "level": 255}),
        (
            "globals_data",
            "limits",
            "{ports: {last: 8080}, name: dns}",
            LIMITS | {"ports": {"first": 80, "last": 8080}, "name": "dns"},
        ),
        ("globals_bss", "pointer", "0x10", "0x10"),
        ("globals_bss", "count.calls", "5", 5),
        ("globals_bss", "beside", "255", 255),
        ("_data_settings", "setting", "77", 77),
    ],
)
def test_a_variable_is_set_and_no_other(
    loaded: Loaded, section: str, name: str, text: str, shown: object
) -> None:
    entry = loaded.variable(section, "../entries/0")
    before = json.loads(entry.read_text())
    result = sh(loaded, f"echo '{text}' > {section}/vars/{name} && cat {section}/vars/{name}")
    assert (result.code, result.stderr) == (0, ""), result
    assert json.loads(result.stdout) == shown
    assert json.loads(entry.read_text()) == before | {name: shown}
    file = loaded.variable(section, name)
    assert os.stat(file).st_size == len(file.read_bytes())


@pytest.mark.parametrize(
    "command",
    [
        "printf 7 > FILE",
        "echo 7 >> FILE",
        "echo 0x7 | tee FILE > /dev/null",
        "echo 7 | dd of=FILE bs=1 status=none",
        "truncate -s 0 FILE && echo 7 > FILE",
        "exec 3> FILE; echo 5 >&3; echo 7 >&3",
    ],
)
def test_tools_that_write(loaded: Loaded, command: str) -> None:
    data = loaded.map("globals_data")
    before = data.lookup(KEY)
    assert sh(loaded, command.replace("FILE", "globals_data/vars/threshold")).code == 0
    assert data.lookup(KEY) == (7).to_bytes(8, "little") + before[8:]


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("mode", "MODE_WACHT", "expected one of MODE_OFF, MODE_WATCH, MODE_BLOCK"),
        ("enabled", "maybe", "vars/enabled"),
        ("threshold", "-1", "vars/threshold"),
        ("threshold", "18446744073709551616", "vars/threshold"),
        ("offsets", "[1, 2]", "expected 4 elements, got 2"),
        ("label", "much too long for it", "vars/label"),
        ("limits", "{hard: 1, level: 256}", "level:"),
        ("limits", "{ports: {middle: 1}}", "ports: "),
        ("limits", "{low: 16}", "low:"),
    ],
)
def test_what_is_refused(loaded: Loaded, name: str, text: str, reason: str) -> None:
    data = loaded.map("globals_data")
    before = data.lookup(KEY)
    result = sh(loaded, f"echo '{text}' > globals_data/vars/{name}")
    assert (result.code, "Invalid argument" in result.stderr) == (1, True)
    log = loaded.mount.error_log("maps/globals_data")
    first, excerpt, marker = log.splitlines()
    assert f"write vars/{name}: " in first and reason in first
    assert excerpt.strip() == text and marker.strip() == "^"
    assert data.lookup(KEY) == before


def test_read_only_variables(loaded: Loaded, mounted: Mount) -> None:
    for section in (".rodata", ".rodata.str1.1", ".kconfig"):  # frozen or not
        made = mounted.pin("section", section_map(section))
        for command in ("echo 1 > FILE", "echo 1 >> FILE", "exec 3<> FILE"):
            refused = mounted.sh(command.replace("FILE", "section/vars/first"))
            assert refused.code == 1
            assert refused.stderr.endswith("first: Operation not permitted\n")
            told = mounted.error_log("section")
            assert told.endswith(f" write vars/first: variables of {section} are read-only\n")
        assert mounted.sh("cat section/vars/first; stat -c %A section/vars/first").stdout == (
            "0\n-r--------\n"
        )
        assert dump(made) == {KEY: bytes(8)}
        assert mounted.sh("rmdir section").code == 0
    refused = sh(loaded, "echo 1 > globals_rodata/vars/limit")
    assert "Operation not permitted" in refused.stderr
    assert "variables of .rodata are" in loaded.mount.error_log("maps/globals_rodata")


def test_freezing_after_a_write(loaded: Loaded) -> None:
    mount = loaded.mount
    file = loaded.variable("globals_data", "threshold")
    with file.open("r+b", buffering=0) as opened:
        opened.write(b"5\n")
        memory = Path(f"/proc/{mount.process.pid}/maps").read_text()
        assert "bpf-map" not in memory
        assert sh(loaded, "echo 1 > globals_data/frozen").code == 0
        with pytest.raises(PermissionError):
            opened.write(b"6\n")
    refused = sh(loaded, "echo 7 > globals_data/vars/threshold")
    assert refused.stderr.endswith("threshold: Operation not permitted\n")
    first, second = mount.error_log("maps/globals_data").splitlines()
    assert first.endswith("write vars/threshold: the map is frozen")
    assert second.endswith("write vars/threshold: the map is frozen")
    eventually("no write bit", lambda: os.stat(file).st_mode & 0o777 == 0o400)
    assert file.read_text() == "5\n"


def test_formats_are_applied(loaded: Loaded) -> None:
    run(loaded.program, 2)
    result = sh(loaded, "cd globals_bss; echo 'value.counter: hex' > format; cat vars/counter")
    assert result.stdout == f'"{2 * LOOPS:#x}"\n', result
    assert sh(loaded, "cat globals_bss/vars/after").stdout == "0\n"
    assert sh(loaded, "cd globals_bss; echo 0x77 > vars/counter; cat vars/counter").code == 0
    assert value_of(loaded.map("globals_bss"), BSS["counter"], 8) == 0x77
    # A format for the whole is for the entry; variables stay what they are.
    result = sh(
        loaded,
        "cd globals_bss; echo 'value.counter: auto' > format; echo 'value: hex' > format;"
        " cat vars/counter entries/0; echo 'value: auto' > format",
    )
    assert result.stdout.startswith('119\n"'), result


def test_names_are_neither_made_nor_removed(loaded: Loaded) -> None:
    commands = {
        "touch new": "create vars/new: ",
        "echo 1 > new": "create vars/new: ",
        "mkdir new": "",
        "rm after": "remove vars/after: ",
        "mv after new": "rename vars/after to new: ",
        "mv after before": "rename vars/after to before: ",
    }
    for command, told in commands.items():
        result = sh(loaded, f"cd globals_bss/vars && {command}")
        assert (result.code, "Operation not permitted" in result.stderr) == (1, True), result
        assert told in loaded.mount.error_log("maps/globals_bss")
    result = sh(loaded, "cat globals_bss/vars/threshold")
    assert result.stderr.endswith("No such file or directory\n")
    assert "after" in os.listdir(loaded.variable("globals_bss", ""))


def test_other_maps_have_none(mounted: Mount) -> None:
    mounted.pin("hash", make_map())
    mounted.pin("array", make_map(MapType.ARRAY, max_entries=1))
    mounted.pin("raw", make_map(MapType.ARRAY, key=4, value=8, max_entries=1))
    # The kernel takes a section for the value's type of these, too.
    for kind, entries in ((MapType.HASH, 1), (MapType.ARRAY, 2), (MapType.PERCPU_ARRAY, 1)):
        made = section_map(map_type=kind, max_entries=entries, flags=0)
        mounted.pin(f"{kind.name}{entries}", made)
    for name in os.listdir(mounted.source):
        if not name.endswith(".debug"):
            assert "entries" in os.listdir(mounted.path / name)
            assert "vars" not in os.listdir(mounted.path / name)
    mounted.pin("section", section_map())
    assert "vars" in os.listdir(mounted.path / "section")


def test_names_that_no_file_can_have(mounted: Mount) -> None:
    names = [".", "..", ".hidden", "tmp_counter", "x" * 255, "y" * 256]
    mounted.pin("section", section_map(variables=names))
    shown = ["%2E", "%2E%2E", ".hidden", "tmp_counter", "x" * 255]
    assert sorted(os.listdir(mounted.path / "section/vars")) == sorted(shown)
    for number, name in enumerate(shown, start=1):
        (mounted.path / "section/vars" / name).write_text(f"{number}\n")
    entry = json.loads((mounted.path / "section/entries/0").read_text())
    assert list(entry.values()) == [1, 2, 3, 4, 5, 0]


@pytest.mark.parametrize("kind", ["not mmapable", "locked"])
def test_maps_that_cannot_be_mapped(mounted: Mount, kind: str) -> None:
    made = section_map(locked=True) if kind == "locked" else section_map(flags=0)
    mounted.pin("section", made)
    assert mounted.sh("cd section/vars; echo 5 > second; echo 6 > first; cat f* s*").stdout == (
        "6\n5\n"
    )
    assert made.lookup(KEY)[:8] == u32(6) + u32(5)
    assert mounted.sh("ls -l section/vars").code == 0


def test_a_variable_of_a_large_section(mounted: Mount) -> None:
    made = mounted.pin("section", section_map(room=16 << 20))
    file = mounted.path / "section/vars/second"
    for number in range(100):  # a lookup of the whole value takes tens of milliseconds
        file.write_text(f"{number}\n")
        assert file.read_text() == f"{number}\n"
        assert os.stat(file).st_size == len(f"{number}\n")
    assert made.lookup(KEY)[-4:] == u32(99)


def test_an_open_file_shows_one_consistent_value(loaded: Loaded) -> None:
    file = loaded.variable("globals_data", "threshold")
    with file.open("rb", buffering=0) as opened:
        assert opened.read(2) == b"10"
        file.write_text("123456\n")
        assert opened.read() == b"00\n"
        opened.seek(0)
        assert opened.read() == b"123456\n"


def test_mtime_moves_when_the_value_does_and_only_then(loaded: Loaded) -> None:
    counter, after = (loaded.variable("globals_bss", name) for name in ("counter", "after"))

    def times() -> tuple[int, int]:
        assert counter.read_text() and after.read_text()
        return os.stat(counter).st_mtime_ns, os.stat(after).st_mtime_ns

    first = times()
    assert times() == first
    run(loaded.program)
    second = times()
    assert second[0] > first[0] and second[1] == first[1]


def test_a_map_that_is_pinned_anew(mounted: Mount) -> None:
    mounted.pin("section", section_map(variables=["first", "second"]))
    file = mounted.path / "section/vars/second"
    with standing(mounted.path / "section/vars") as shell, file.open("r+b", buffering=0) as opened:
        assert shell("echo 1 > second; cat second") == "1\n"
        os.unlink(mounted.source / "section")
        assert shell.run("cat second")[1] == 1
        made = mounted.pin("section", section_map(variables=["second", "third"]))
        assert shell("ls; cat second; echo 5 > third; cat third") == "second\nthird\n0\n5\n"
        assert made.lookup(KEY) == u32(0) + u32(5)
        opened.write(b"9\n")  # to the old map, which this file has open
        assert made.lookup(KEY) == u32(0) + u32(5)
        os.unlink(mounted.source / "section")
        mounted.pin("section", make_map())
        assert shell.run("ls; cat second")[1] == 1
        assert not file.exists()


def test_the_pin_says_who_may(mounted: Mount) -> None:
    mounted.pin("shared", section_map())
    mounted.pin("constants", section_map(".rodata"))
    (mounted.source / "shared").chmod(0o640)
    (mounted.source / "constants").chmod(0o664)
    told = mounted.sh("stat -c %a {shared,constants}/vars{,/first}").stdout.split()
    assert told == ["750", "640", "555", "444"]
