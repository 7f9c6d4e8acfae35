"""Listing large directories: what each reader gets, and what stays behind in the kernel."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.directories import Name, reading
from support.maps import each_key, make_map, u32, u64
from support.mounting import Mount
from support.waiting import eventually

from fusefs.bpf.map import Map, MapType
from fusefs.tree.node import FRESH

COUNT = 5000
# Names that get attributes whoever lists them, and some that others of the tree have.
FEW = 1200


def sample(mount: Mount, count: int = COUNT) -> Map:
    """A map whose values are as long as their keys tell."""
    made = mount.pin("sample", make_map(max_entries=count))
    for number in range(count):
        made.update(u32(number), u64(value(number)))
    return made


def value(number: int) -> int:
    """The value of a key: of one to eight digits."""
    return int("12345678"[: number % 8 + 1])


def entries(mount: Mount) -> Path:
    """The directory of its keys."""
    return mount.path / "sample/entries"


@pytest.fixture(params=["stock", "ordinary"])
def mount(request: pytest.FixtureRequest, mounter: Callable[..., Mount]) -> Mount:
    """A mount that logs, with plain entries or without."""
    script = str(Path(__file__).with_name("listing_command.py"))
    return mounter("-d", command=[sys.executable, script, request.param])


@pytest.fixture
def plain(mount: Mount, request: pytest.FixtureRequest) -> bool:
    """Whether entries can be plain there."""
    way: str = request.node.callspec.params["mount"]
    return way == "stock"


def inodes(mount: Mount) -> int:
    """How many inodes the kernel referred to after the last listing."""
    found: list[str] = []

    def logged() -> bool:
        found[:] = re.findall(r"(\d+) inodes", mount.log())
        return bool(found)

    eventually("the listing is closed", logged)
    return int(found[-1])


def lookups(mount: Mount) -> int:
    """How often a key has been looked up."""
    return len(re.findall(r"lookup\(\d+, b'\d+'\)", mount.log()))


def test_names_alone_leave_no_inodes(mount: Mount, plain: bool) -> None:
    sample(mount)
    listed = mount.sh("ls -U sample/entries | sort -n").stdout.split()
    assert listed == [str(number) for number in range(COUNT)]
    assert lookups(mount) == 0
    if plain:
        assert inodes(mount) < FEW
    else:
        assert inodes(mount) > COUNT


def test_attributes_come_with_the_names_for_those_who_want_them(mount: Mount) -> None:
    sample(mount)
    # As `ls -l` of Debian 12 does it. That of Debian 13 asks for the list of each file's extended
    # attributes, too; meanwhile what it was told of the next ones grows old.
    with os.scandir(entries(mount)) as listed:
        sizes = {entry.name: entry.stat().st_size for entry in listed}
    assert sizes == {str(n): len(str(value(n))) + 1 for n in range(COUNT)}
    # Each of them is a request less; those that were too long under way are looked up again.
    assert lookups(mount) < COUNT / 2
    assert inodes(mount) > COUNT / 2


def test_who_comes_for_attributes_later_looks_them_up(mount: Mount) -> None:
    sample(mount)
    found = mount.sh("find sample/entries -size -2 -type f | wc -l")
    assert (found.code, found.stdout) == (0, f"{COUNT}\n")
    assert mount.sh("grep -r 1234567 sample/entries | wc -l").stdout == f"{COUNT // 4}\n"


def kinds(names: list[Name]) -> set[int]:
    """The types that names have."""
    return {name.type for name in names}


def test_type_and_number_are_those_that_stat_shows(mount: Mount) -> None:
    sample(mount)
    with reading(entries(mount)) as reader:
        listed = reader.rest()
    assert kinds(listed) == {stat.S_IFREG}
    assert len({name.inode for name in listed}) == COUNT
    for name in listed[::37]:
        assert os.stat(entries(mount) / name.name).st_ino == name.inode


def test_links_are_listed_as_links(mount: Mount) -> None:
    inner = make_map()
    made = Map.create(
        MapType.HASH_OF_MAPS, key_size=4, value_size=4, max_entries=100, name="outer", inner=inner
    )
    for number in range(100):
        made.update(u32(number), u32(inner.fd))
    mount.pin("sample", made)
    with reading(entries(mount)) as reader:
        listed = reader.rest()
    assert len(listed) == 100
    assert kinds(listed) == {stat.S_IFLNK}
    for name in listed:
        assert os.lstat(entries(mount) / name.name).st_ino == name.inode


def test_a_name_that_was_cut_is_found(mount: Mount) -> None:
    made = mount.pin("sample", make_map(key=200, value=8, max_entries=300))
    for number in range(300):
        made.update(u32(number) * 50, u64(number))
    with reading(entries(mount)) as reader:
        listed = reader.rest()
    assert len({name.name for name in listed}) == 300
    for name in listed[::7]:
        assert "%#" in name.name
        assert os.stat(entries(mount) / name.name).st_ino == name.inode
        (entries(mount) / name.name).read_text()


def test_a_reader_may_go_back(mount: Mount) -> None:
    sample(mount)
    with reading(entries(mount)) as reader:
        listed = reader.rest(32768)
        for at in (4000, 10, 2000, 0, COUNT - 1):
            reader.seek(listed[at].after)
            some = reader.some()
            assert some == listed[at + 1 :][: len(some)]
            for name in some:  # from here on it gets attributes
                os.stat(entries(mount) / name.name)
        reader.seek(0)
        assert reader.rest() == listed


def test_entries_come_and_go_meanwhile(mount: Mount) -> None:
    made = sample(mount)
    for number in range(0, COUNT, 10):
        made.delete(u32(number))
    with reading(entries(mount)) as reader:
        listed = reader.some()
        for number in range(COUNT):
            if number % 10 == 0:
                made.update(u32(number), u64(1))
            elif number % 10 == 1:
                made.delete(u32(number))
        listed += reader.rest()
    numbers = [int(name.name) for name in listed]
    assert len(numbers) == len(set(numbers))
    assert {n for n in range(COUNT) if n % 10 > 1} <= set(numbers)


def test_a_slow_reader_gets_new_attributes(mount: Mount) -> None:
    made = sample(mount, 500)
    with reading(entries(mount)) as reader:
        reader.some()
        for number in range(0, 500, 2):
            made.update(u32(number), u64(1234567890))
        for number in range(1, 500, 2):
            made.delete(u32(number))
        time.sleep(2 * FRESH)  # what was seen before is too old now
        while some := reader.some():
            for name in some:
                gone = int(name.name) % 2
                try:
                    assert os.stat(entries(mount) / name.name).st_size == 11
                    assert not gone
                except FileNotFoundError:
                    assert gone


def shown(mount: Mount) -> dict[str, tuple[str, int, int, int]]:
    """Mode, links, size and mtime of each entry, as `ls -l` shows them."""
    listed = mount.sh("ls -l --time-style=+%s%N sample/entries").stdout.splitlines()[1:]
    rows = (line.split() for line in listed)
    return {name: (mode, int(n), int(s), int(t)) for mode, n, _, _, s, t, name in rows}


def test_a_long_listing_shows_what_stat_does(mount: Mount) -> None:
    sample(mount, 3000)
    listed = shown(mount)
    assert len(listed) == 3000
    for name, told in listed.items():
        status = os.stat(entries(mount) / name)
        mode = stat.filemode(status.st_mode)
        assert told == (mode, status.st_nlink, status.st_size, status.st_mtime_ns), name


def test_the_mtime_moves_after_a_change_that_only_listings_have_seen(mount: Mount) -> None:
    made = sample(mount, 3000)
    before = shown(mount)
    made.update(u32(2345), u64(value(2345) + 1))
    after: dict[str, tuple[str, int, int, int]] = {}

    def moved() -> bool:
        after.update(shown(mount))
        return after["2345"] != before["2345"]

    eventually("a listing shows the change", moved)
    assert after["2345"][:3] == before["2345"][:3]
    assert after["2345"][3] > before["2345"][3]
    del after["2345"], before["2345"]
    assert after == before


def test_a_change_after_a_listing_moves_the_mtime(mount: Mount) -> None:
    made = sample(mount, 3000)
    listed = shown(mount)
    made.update(u32(2345), u64(value(2345) + 1))
    time.sleep(2 * FRESH)  # the kernel takes the listing's word so long
    for number in (2344, 2345):
        moved = os.stat(entries(mount) / str(number)).st_mtime_ns - listed[str(number)][3]
        assert (moved > 0) == (number == 2345)
        (entries(mount) / str(number)).read_text()
        assert os.stat(entries(mount) / str(number)).st_mtime_ns == listed[str(number)][3] + moved


def test_what_the_kernel_gives_back_is_forgotten(mount: Mount) -> None:
    sample(mount)
    shown(mount)
    assert inodes(mount) > COUNT / 2
    Path("/proc/sys/vm/drop_caches").write_text("2")

    def forgotten() -> bool:
        mount.sh("ls .")
        return inodes(mount) < 100

    eventually("all are given back", forgotten)
    assert shown(mount)["17"][2] == len(str(value(17))) + 1


def test_a_write_during_a_listing_is_not_taken_back(mount: Mount) -> None:
    sample(mount, 500)
    with reading(entries(mount)) as reader:
        reader.some()
        file = entries(mount) / "499"
        file.write_text("123456789\n")
        written = os.stat(file)
        reader.rest()
        shown = os.stat(file)
    assert (shown.st_size, shown.st_mtime_ns) == (10, written.st_mtime_ns)


def test_what_is_removed_during_a_listing_stays_away(mount: Mount) -> None:
    made = sample(mount, 500)
    with reading(entries(mount)) as reader:
        given = {name.name for name in reader.some()}
        left = sorted({str(number) for number in range(500)} - given, key=int)
        (entries(mount) / left[0]).unlink()
        (entries(mount) / left[1]).rename(entries(mount) / "1000000")
        reader.rest()
        for name in left[:2]:
            with pytest.raises(FileNotFoundError):
                os.stat(entries(mount) / name)
    assert len(list(each_key(made))) == 499


@pytest.mark.parametrize("replaced", [False, True], ids=["removed", "replaced"])
def test_the_map_goes_during_a_listing(mount: Mount, replaced: bool) -> None:
    sample(mount)
    with reading(entries(mount)) as reader:
        listed = reader.some()
        (mount.source / "sample").unlink()
        if replaced:
            mount.pin("sample", make_map())
        # Nobody takes a part for the whole.
        with pytest.raises(OSError, match="Stale file handle"):
            while some := reader.some():
                listed += some
    assert len(listed) < COUNT


def test_a_small_buffer_while_others_change(mount: Mount) -> None:
    made = sample(mount)
    for number in range(0, COUNT, 2):
        made.delete(u32(number))
    with reading(entries(mount)) as reader:
        listed = []
        while some := reader.some(400):  # less than what the kernel asks for
            listed += [int(name.name) for name in some]
            number = len(listed)
            made.update(u32(2 * number % COUNT), u64(1))
            with contextlib.suppress(FileNotFoundError):
                made.delete(u32(2 * (number - 100) % COUNT))
    assert len(listed) == len(set(listed))
    assert set(range(1, COUNT, 2)) <= set(listed)


def test_the_last_names_once_more(mount: Mount) -> None:
    made = sample(mount)
    with reading(entries(mount)) as reader:
        before, *last = reader.rest()[-3:]
        for name in last:
            made.update(u32(int(name.name)), u64(1))
        time.sleep(FRESH)  # until what was found is too old to be told
        reader.seek(before.after)
        assert [name.name for name in reader.rest()] == [name.name for name in last]
        assert [(entries(mount) / name.name).stat().st_size for name in last] == [2, 2]
