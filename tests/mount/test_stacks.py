"""stack_trace: stacks by the functions that were on them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.maps import dump, u32
from support.mounting import Mount
from support.network import compile_program
from support.running import repeating
from support.shell import checked
from support.stacks import Stacks, compile_library, loaded

from fusefs.bpf.map import Map, MapType

ADDRESS = re.compile(r"0x[0-9a-f]+")
KERNEL = re.compile(r"[A-Za-z_][\w.]*\+0x[0-9a-f]+( \[\w+\])?")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where what is compiled is."""
    return tmp_path_factory.mktemp("programs")


@pytest.fixture(scope="module")
def compiled(directory: Path) -> Path:
    """The object file of the programs."""
    return compile_program("stacks", directory)


@pytest.fixture
def stacks(mounted: Mount, compiled: Path) -> Iterator[Stacks]:
    """The programs and their maps, shown by a mount."""
    with loaded(mounted.source, compiled) as made:
        yield made


def lines(mount: Mount, name: str, number: int) -> list[str]:
    """What is on a stack."""
    result = mount.sh(f"cat maps/{name}/entries/{number}")
    assert result.code == 0, result
    return result.stdout.splitlines()


def test_a_stack_of_the_kernel(mounted: Mount, stacks: Stacks) -> None:
    number = stacks.run("in_the_kernel")
    shown = lines(mounted, "kernel_stacks", number)
    assert len(shown) > 3
    assert all(KERNEL.fullmatch(line) for line in shown), shown
    # The innermost is the program, which was loaded a moment ago.
    assert re.fullmatch(r"bpf_prog_[0-9a-f]{16}_in_the_kernel\+0x[0-9a-f]+ \[bpf\]", shown[0])
    assert any(line.startswith("__sys_bpf+0x") for line in shown)
    assert os.listdir(mounted.path / "maps/kernel_stacks/entries") == [str(number)]
    assert mounted.sh("cat maps/kernel_stacks/count").stdout == "1\n"
    entry = json.loads(mounted.sh("jq -c . maps/kernel_stacks/entries.jsonl").stdout)
    assert entry == {"key": number, "value": shown}


def test_the_addresses_are_those_of_the_value(mounted: Mount, stacks: Stacks) -> None:
    number = stacks.run("in_the_kernel")
    with stacks.map("kernel_stacks") as made:
        value = made.lookup(u32(number))
    addresses = [int.from_bytes(value[at : at + 8], "little") for at in range(0, len(value), 8)]
    kallsyms: dict[str, list[int]] = {}
    for line in Path("/proc/kallsyms").read_text().splitlines():
        digits, _, name, *_ = line.split()
        kallsyms.setdefault(name, []).append(int(digits, 16))
    for line, address in zip(lines(mounted, "kernel_stacks", number), addresses, strict=False):
        name, _, offset = line.partition("+")
        assert address - int(offset.split()[0], 16) in kallsyms[name]


def test_a_stack_of_a_process(mounted: Mount, stacks: Stacks) -> None:
    shown = lines(mounted, "user_stacks", stacks.run("in_the_process"))
    assert shown and all(ADDRESS.fullmatch(line) for line in shown)
    regions = [
        [int(end, 16) for end in line.split()[0].split("-")]
        for line in Path("/proc/self/maps").read_text().splitlines()
        if " r-xp " in line
    ]
    assert any(first <= int(shown[0], 16) < end for first, end in regions)


def test_build_ids(mounted: Mount, stacks: Stacks, directory: Path) -> None:
    shown = lines(mounted, "build_ids", stacks.run("in_its_files"))
    found = re.fullmatch(r"([0-9a-f]{40})\+0x[0-9a-f]+", shown[0])
    assert found
    files = {
        line.split()[-1]
        for line in Path("/proc/self/maps").read_text().splitlines()
        if " r-xp " in line and line.split()[-1].startswith("/")
    }
    assert any(found[1] in checked("readelf", "-n", file) for file in files)
    # The kernel is no file.
    shown = lines(mounted, "build_ids", stacks.run("in_no_file"))
    assert all(KERNEL.fullmatch(line) for line in shown), shown
    streamed = mounted.sh("jq -r '.value[]' maps/build_ids/entries.jsonl").stdout.splitlines()
    assert len(streamed) >= len(shown) + 1
    assert "null" not in streamed


def test_sizes_and_modes(mounted: Mount, stacks: Stacks) -> None:
    stacks.run("in_the_kernel")
    stacks.run("in_part")
    told = mounted.sh(
        "cd maps/kernel_stacks/entries; for f in *; do stat -c %s $f; cat $f | wc -c; done"
    )
    sizes = list(map(int, told.stdout.split()))
    assert len(sizes) == 8 and sizes[::2] == sizes[1::2] and min(sizes) > 20
    assert mounted.sh("stat -c '%A %h' maps/*/entries/* | sort -u").stdout == "-r-------- 2\n"


def test_ids_are_removed(mounted: Mount, stacks: Stacks) -> None:
    stacks.run("in_the_kernel")
    stacks.run("in_part")
    with stacks.map("kernel_stacks") as made:
        ids = {int.from_bytes(key, "little") for key in dump(made)}
        assert len(ids) == 4
        first = min(ids)
        assert mounted.sh(f"rm maps/kernel_stacks/entries/{first}").code == 0
        assert {int.from_bytes(key, "little") for key in dump(made)} == ids - {first}
        absent = mounted.sh(f"cat maps/kernel_stacks/entries/{first}")
        assert absent.stderr.endswith("No such file or directory\n")
        assert mounted.sh(
            "rm maps/kernel_stacks/entries/*; cat maps/kernel_stacks/count"
        ).stdout == ("0\n")
        assert dump(made) == {}
    for other in (4294967295, 16384, 1 << 32, "x"):
        assert not (mounted.path / f"maps/kernel_stacks/entries/{other}").exists()


def test_nothing_can_be_written(mounted: Mount, stacks: Stacks) -> None:
    number = stacks.run("in_the_kernel")
    for command in (f"echo 1 > {number}", "echo 1 > 3", "touch 3", f"mv {number} 3",
                    f"cp {number} 3", f"truncate -s 0 {number}"):  # fmt: skip
        result = mounted.sh(f"cd maps/kernel_stacks/entries && {command}")
        assert (result.code, "Operation not permitted" in result.stderr) == (1, True), command
        assert "the kernel makes a stack" in mounted.error_log("maps/kernel_stacks")
    assert os.listdir(mounted.path / "maps/kernel_stacks/entries") == [str(number)]


def test_formats_and_addresses(mounted: Mount, stacks: Stacks) -> None:
    number = stacks.run("in_the_process")
    (mounted.path / "maps/user_stacks/format").write_text("value: hex\n")
    with stacks.map("user_stacks") as made:
        value = made.lookup(u32(number))
    assert mounted.sh(f"cat maps/user_stacks/entries/{number}").stdout == f'"{value.hex()}"\n'
    (mounted.path / "maps/user_stacks/format").write_text("value: auto\n")
    assert all(ADDRESS.fullmatch(line) for line in lines(mounted, "user_stacks", number))


def test_an_empty_map(mounted: Mount) -> None:
    mounted.pin("empty", Map.create(MapType.STACK_TRACE, key_size=4, value_size=80, max_entries=8))
    assert mounted.sh("ls empty/entries; cat empty/count empty/entries.jsonl").stdout == "0\n"


def test_programs_that_come_later(mounted: Mount, stacks: Stacks, compiled: Path) -> None:
    stacks.run("in_the_kernel")
    assert mounted.sh("cat maps/kernel_stacks/entries/*").code == 0  # the symbols have been read
    for turn in "123":
        (mounted.path / turn).mkdir()
        with loaded(mounted.source / turn, compiled) as made:
            number = made.run("in_the_kernel")
            shown = mounted.sh(f"head -n 1 {turn}/maps/kernel_stacks/entries/{number}").stdout
            assert re.match(r"bpf_prog_\w+_in_the_kernel\+0x[0-9a-f]+ ", shown)


def test_many_stacks(mounted: Mount, stacks: Stacks, directory: Path) -> None:
    stacks.run_deep(compile_library(directory), 10)
    with stacks.map("user_stacks") as made:
        count = len(dump(made))
    assert count > 900  # those whose hashes are the same are one
    started = time.monotonic()
    told = mounted.sh("cd maps/user_stacks; ls entries | wc -l; wc -l < entries.jsonl; cat count")
    assert told.stdout.split() == [str(count)] * 3
    texts, sizes = (
        mounted.sh(f"cd maps/user_stacks/entries; {command}").stdout
        for command in ("cat *", "stat -c %s *")
    )
    assert len(texts) == sum(map(int, sizes.split()))
    assert time.monotonic() - started < 10


def test_stacks_that_stay_are_given_once_while_others_come_and_go(
    mounted: Mount, stacks: Stacks, directory: Path
) -> None:
    library = compile_library(directory)
    names = mounted.path / "maps/user_stacks/entries"
    every: list[int] = []
    own = stacks.map("user_stacks")

    def disturb() -> None:
        stacks.run_deep(library, 8)
        every[:] = every or sorted(int.from_bytes(key, "little") for key in dump(own))
        for number in every[::2]:
            with contextlib.suppress(FileNotFoundError):  # a reader holds it
                own.delete(u32(number))

    with own, repeating(disturb) as turns:
        turns.more(3)
        staying = set(map(str, every[1::2]))
        assert len(staying) > 100
        for _ in range(10):
            listed = os.listdir(names)
            assert len(listed) == len(set(listed))
            assert staying <= set(listed) <= set(map(str, every))
            turns.more()
