"""Scratch files: what tools make beside a file while they save it. They are as files of any file
system are, but few and small, and gone with the mount."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.maps import ARRAYS, dump, make_map, u32, u64
from support.mounting import Mount, SharedMount
from support.sections import section_map
from support.shell import Result, run
from support.users import DENIED, NOBODY, nobody

from fusefs.bpf.map import Map, MapType

Mounter = Callable[..., Mount]
OTHER = 65533  # another user that is not root


@pytest.fixture
def entries(mounted: Mount, sample: Map) -> Path:
    """The directory of its entries."""
    return mounted.path / "sample/entries"


def for_all(mounter: Mounter) -> tuple[Mount, Map]:
    """A mount for all users, and in it a map with an entry that all may write."""
    mount = mounter("-o", "allow_other")
    mount.sh("chmod 755 .")
    made = mount.pin("sample", make_map())
    made.update(u32(1), u64(500))
    os.chmod(mount.source / "sample", 0o666)
    return mount, made


def number_of(error: pytest.ExceptionInfo[OSError]) -> int | None:
    """The errno."""
    return error.value.errno


def test_it_is_a_file_as_any_other(mounted: Mount, sample: Map, entries: Path) -> None:
    script = """
        umask 077; echo hello > .a && stat -c '%A %s %h %U' .a && cat .a
        echo more >> .a; chmod 640 .a; touch -d @1000000000 .a; stat -c '%a %s %Y' .a
        mv .a .b; ls -A; cp .b b~; cmp .b b~; ln -s anything '.#1'; readlink '.#1'
        truncate -s 3 .b; cat .b; exec 3< .b; rm .b; cat <&3; rm b~ '.#1'; ls -A
    """
    result = mounted.sh(f"cd sample/entries; {script}")
    assert result == Result(
        0,
        "-rw------- 6 1 root\nhello\n640 11 1000000000\n.b\n1\nanything\nhelhel1\n",
        "",
    )
    assert dump(sample) == {u32(1): u64(500)}


def test_it_is_listed_and_no_entry(mounted: Mount, entries: Path) -> None:
    (entries / ".1.swp").write_text("2")
    assert sorted(os.listdir(entries)) == [".1.swp", "1"]
    assert mounted.sh("cat sample/count sample/entries.jsonl").stdout == (
        '1\n{"key": 1, "value": 500}\n'
    )


def test_a_name_for_scratch_files_is_no_key(mounted: Mount) -> None:
    """Whatever tools do with such names does nothing to the keys that are spelled so."""
    made = mounted.pin("texts", make_map(key="text", value="u64"))
    names = [".1.swp", "eth0~", "#eth0#", "sedAb12Cd", "XXAb12Cd", "tmpAb12Cd34", "cooleditAb12Cd"]
    for name in names:
        made.update(name.encode().ljust(16, b"\0"), u64(1))
    before = dump(made)
    entries = mounted.path / "texts/entries"
    shown = os.listdir(entries)
    assert not set(shown) & set(names) and len(shown) == len(names)
    for name in names:
        file = entries / name
        assert not file.exists()
        with pytest.raises(FileNotFoundError):
            file.unlink()
        file.write_text("5\n")
        assert file.read_text() == "5\n"
        file.unlink()
        with pytest.raises(OSError, match="not permitted") as error:
            (entries / shown[0]).rename(file)
        assert number_of(error) == errno.EPERM
    assert dump(made) == before
    assert "is a name for scratch files" in mounted.error_log("texts")
    # The keys themselves have other names, which work as any.
    assert {file.read_text() for file in entries.iterdir()} == {"1\n"}


def test_renamed_to_a_key_it_is_one_update(mounted: Mount, sample: Map, entries: Path) -> None:
    (entries / ".new").write_text("7\n")
    (entries / ".new").rename(entries / "1")
    assert (entries / "1").read_text() == "7\n"
    assert os.listdir(entries) == ["1"]
    (entries / ".new").write_text("8")
    (entries / ".new").rename(entries / "2")
    assert dump(sample) == {u32(1): u64(7), u32(2): u64(8)}
    # Not over one that is there, if it was asked so.
    (entries / ".new").write_text("9")
    assert mounted.sh("cd sample/entries; mv -n .new 2; cat 2; mv -n .new 3; cat 3").stdout == (
        "8\n9\n"
    )
    assert dump(sample) == {u32(1): u64(7), u32(2): u64(8), u32(3): u64(9)}


REFUSED = {
    "no value": ("abc", errno.EINVAL),
    "nothing": ("", errno.EINVAL),
    "no text": ("\udcff", errno.EINVAL),
    "too large": ("18446744073709551616", errno.EINVAL),
}


@pytest.mark.parametrize(("text", "number"), REFUSED.values(), ids=list(REFUSED))
def test_what_is_refused_stays(sample: Map, entries: Path, text: str, number: int) -> None:
    file = entries / ".new"
    file.write_bytes(os.fsencode(text))
    for name in ("1", "2"):
        with pytest.raises(OSError, match=r"\.new") as error:
            file.rename(entries / name)
        assert number_of(error) == number
    assert file.read_bytes() == os.fsencode(text)
    assert dump(sample) == {u32(1): u64(500)}


def test_a_full_map(mounted: Mount) -> None:
    made = mounted.pin("sample", make_map(max_entries=1))
    made.update(u32(1), u64(5))
    result = mounted.sh("cd sample/entries; echo 7 > .new; mv .new 2")
    assert "No space left on device" in result.stderr
    assert mounted.sh("cd sample/entries; sed -i s/5/6/ 1; cat 1").stdout == "6\n"
    assert "the map is full" in mounted.error_log("sample")


def test_a_text_that_is_too_long(mounted: Mount, sample: Map, entries: Path) -> None:
    """It is not even read, while others wait."""
    (entries / ".new").write_text("[" + "1, " * 10_000_000)
    began = time.monotonic()
    with pytest.raises(OSError, match="Invalid argument"):
        (entries / ".new").rename(entries / "1")
    assert time.monotonic() - began < 5  # to read it would take a minute
    (entries / ".new").unlink()
    assert dump(sample) == {u32(1): u64(500)}
    assert "the text is longer than" in mounted.error_log("sample")


@pytest.mark.parametrize("kind", ARRAYS, ids=lambda kind: kind.name)
def test_an_array_is_edited_by_its_owner(mounter: Mounter, kind: MapType) -> None:
    mount = mounter("-o", "allow_other")
    mount.sh("chmod 755 .")
    mount.pin("sample", make_map(kind, max_entries=2))
    os.chown(mount.source / "sample", NOBODY, NOBODY)
    script = "cd sample/entries; sed -i 's/0/7/g' 1 && cat 1; rm -f 1; echo 5 > 2"
    result = nobody(mount, script)
    assert result.stdout in ("7\n", "[" + ", ".join(["7"] * (os.cpu_count() or 1)) + "]\n")
    # Nothing is made or removed all the same.
    assert "rm: cannot remove '1': Operation not permitted" in result.stderr
    assert "2: Invalid argument" in result.stderr


def test_others_files_are_as_private_as_anywhere(mounter: Mounter) -> None:
    """In a directory that several may write to."""
    mount, made = for_all(mounter)
    assert nobody(mount, "umask 077; echo 7 > sample/entries/.mine").code == 0
    other = ["setpriv", f"--reuid={OTHER}", f"--regid={OTHER}", "--clear-groups", "bash", "-c"]
    assert run([*other, "cat sample/entries/.mine"], cwd=mount.path).stderr.endswith(DENIED)
    # To rename it over an entry would be to read it.
    result = run([*other, "mv sample/entries/.mine sample/entries/1"], cwd=mount.path)
    assert DENIED in result.stderr
    assert dump(made) == {u32(1): u64(500)}
    assert nobody(mount, "mv sample/entries/.mine sample/entries/1").code == 0
    assert dump(made) == {u32(1): u64(7)}
    # Who may not write to the map makes no scratch files.
    os.chmod(mount.source / "sample", 0o644)
    assert nobody(mount, "echo 7 > sample/entries/.mine").stderr.endswith(DENIED)


def test_files_beside_the_entries_are_saved_so_too(mounter: Mounter) -> None:
    """`format`, and whatever else can be read and written."""
    mounted = mounter()
    sample = mounted.pin("sample", make_map())
    sample.update(u32(1), u64(500))
    result = mounted.sh(
        "cd sample; sed -i 's/value: auto/value: hex/' format; cat entries/1; ls -A"
    )
    assert result.stdout.startswith('"0x1f4"\n')
    assert ".sed" not in result.stdout and result.stderr == ""
    result = mounted.sh("cd sample; sed -i 's/hex/nonsense/' format")
    assert "Invalid argument" in result.stderr
    assert "write format: " in mounted.error_log("sample")
    for name in ("info", "count", "entries", "nothing"):
        result = mounted.sh(f"cd sample; echo 1 > .new; mv -T .new {name}; rm .new")
        assert result.stderr, name
    assert mounted.sh("cd sample; sed -i s/0/1/ frozen; cat frozen").stdout == "1\n"
    for command in ("sed -i s/0x1f4/7/ entries/1", "sed -i s/1/0/ frozen"):
        assert mounted.sh(f"cd sample; {command}").code, command
    assert dump(sample) == {u32(1): u64(500)}


def test_a_variable_is_edited(mounted: Mount) -> None:
    """One that is called like a scratch file, too."""
    made = mounted.pin("section", section_map(variables=["limit", "tmp_counter"]))
    assert mounted.sh("cd section/vars; sed -i s/0/7/ limit tmp_counter; ls -A").stdout == (
        "limit\ntmp_counter\n"
    )
    assert made.lookup(u32(0)) == u32(7) + u32(7)
    result = mounted.sh("cd section/vars; echo 1 > .new; mv .new nothing; rm .new tmp_counter")
    assert result.stderr.count("Operation not permitted") == 2
    assert "the program has no such variable" in mounted.error_log("section")


def test_they_are_gone_with_the_mount(bpffs: Path, mounter: Mounter) -> None:
    first = mounter()
    first.pin("sample", make_map())
    (first.path / "sample/entries/.new").write_text("1")
    first.end()
    assert os.listdir(mounter().path / "sample/entries") == []


def test_they_are_gone_with_the_pin(mounted: Mount, entries: Path) -> None:
    (entries / ".new").write_text("1")
    mounted.sh("rmdir sample")
    mounted.pin("sample", make_map())
    assert os.listdir(entries) == []


def fill(entries: Path) -> tuple[int, int]:
    """Make files as long as it goes; how many there are, and the errno of the one too many."""
    for number in range(100_000):
        try:
            (entries / f".{number}").touch()
        except OSError as error:
            return number, error.errno or 0
    return 100_000, 0


def test_they_are_bounded_in_number(mounted: Mount, sample: Map, entries: Path) -> None:
    number, error = fill(entries)
    assert (number, error) == (1024, errno.ENOSPC)
    # Entries are written as ever, and to remove some helps.
    assert mounted.sh("cd sample/entries; echo 7 > 1; cat 1").stdout == "7\n"
    assert "No space left" in mounted.sh("cd sample/entries; sed -i s/7/8/ 1").stderr
    assert mounted.sh("cd sample/entries; rm .1; sed -i s/7/8/ 1; cat 1").stdout == "8\n"
    # So does to unpin the map.
    mounted.sh("rmdir sample")
    mounted.pin("sample", make_map())
    assert mounted.sh("cd sample/entries; echo 7 > .new; mv .new 1; cat 1").stdout == "7\n"


def test_they_are_bounded_in_size(mounted: Mount, entries: Path) -> None:
    """All together, those too that have no name any more and are still open."""
    megabyte = bytes(1 << 20)
    with contextlib.ExitStack() as stack:
        written = 0
        with pytest.raises(OSError, match="No space left") as error:
            for number in range(1000):
                file = stack.enter_context((entries / f".{number}").open("wb", buffering=0))
                (entries / f".{number}").unlink()
                file.write(megabyte)
                written += 1
        assert number_of(error) == errno.ENOSPC
        assert written == 32
        for size in (1 << 20, 1 << 40):
            with pytest.raises(OSError, match="No space left"):
                os.truncate(file.fileno(), size)
    (entries / ".new").write_bytes(megabyte)
    (entries / ".new").unlink()


def test_nobody_takes_the_room_of_others(mounter: Mounter) -> None:
    mount, _made = for_all(mounter)
    result = nobody(mount, "cd sample/entries; touch .{1..1000}; ls -A | wc -l; rm .*")
    assert "No space left on device" in result.stderr
    assert result.stdout == "257\n"
    result = nobody(mount, "head -c 32M /dev/zero > sample/entries/.big")
    assert result.stderr.endswith("No space left on device\n")
    other = ["setpriv", f"--reuid={OTHER}", f"--regid={OTHER}", "--clear-groups", "bash", "-c"]
    edit = "cd sample/entries; sed -i s/500/7/ 1; cat 1"
    assert run([*other, edit], cwd=mount.path) == Result(0, "7\n", "")
    assert mount.sh(edit.replace("500/7", "7/8")).stdout == "8\n"


OFFSETS = st.integers(0, 300)
DATA = st.binary(max_size=100)
OPERATIONS = st.one_of(
    st.tuples(st.just("write"), OFFSETS, DATA),
    st.tuples(st.just("append"), st.just(0), DATA),
    st.tuples(st.just("truncate"), OFFSETS, st.just(b"")),
    st.tuples(st.just("anew"), st.just(0), DATA),
    st.tuples(st.just("read"), OFFSETS, st.just(b"")),
)


def apply(file: Path, what: str, offset: int, data: bytes) -> tuple[bytes, int]:
    """Do something to a file; what is read, and its size."""
    flags = {"append": os.O_APPEND, "anew": os.O_TRUNC}.get(what, 0)
    fd = os.open(file, os.O_RDWR | os.O_CREAT | flags, 0o600)
    try:
        match what:
            case "truncate":
                os.ftruncate(fd, offset)
            case "append" | "anew":
                os.write(fd, data)
            case "write":
                os.pwrite(fd, data, offset)
        return os.pread(fd, 1000, offset if what == "read" else 0), os.fstat(fd).st_size
    finally:
        os.close(fd)


@settings(max_examples=50, deadline=None)
@given(operations=st.lists(OPERATIONS, max_size=8))
def test_it_does_what_a_file_of_any_file_system_does(
    shared: SharedMount,
    tmp_path_factory: pytest.TempPathFactory,
    operations: list[tuple[str, int, bytes]],
) -> None:
    plain = tmp_path_factory.mktemp("plain") / "file"
    with shared.borrowed() as mount:
        mount.pin("sample", make_map())
        scratch = mount.path / "sample/entries/.file"
        for operation in operations:
            assert apply(scratch, *operation) == apply(plain, *operation)
