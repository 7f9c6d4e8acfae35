"""`format`: other ways to show keys and values."""

from __future__ import annotations

import copy
import functools
import json
import os
import struct
from collections.abc import Callable, Iterator

import pytest
from support.formats import ADDRESSES, NAMES, accepted, forget, sample_of, set_to, settings, shown
from support.maps import dump, make_map, u32, u64, value_of
from support.mounting import Mount, SharedMount
from support.renaming import rename
from support.sections import section_map
from support.shell import Result, run
from support.waiting import eventually

from fusefs.bpf.bpffs import RenameFlags
from fusefs.bpf.cpus import possible_cpus
from fusefs.bpf.map import MapType

Mounter = Callable[..., Mount]

CPUS = possible_cpus()
INVALID = "Invalid argument\n"


@pytest.fixture
def mounted(shared: SharedMount) -> Iterator[Mount]:
    """A directory in a mount. It is a new one for each test, since formats stay for names."""
    with shared.borrowed() as mount:
        inside = copy.copy(mount)
        inside.source, inside.path = mount.source / "inside", mount.path / "inside"
        os.mkdir(inside.source)
        yield inside


def test_addresses_instead_of_numbers(mounted: Mount) -> None:
    sample = sample_of(mounted)
    plain = sorted(str(int.from_bytes(address, "little")) for address in ADDRESSES)
    assert shown(mounted) == plain
    assert mounted.sh("cat sample/format").stdout == "key: auto\nvalue: auto\n"
    accepted(mounted.sh("echo 'key: ipv4' > sample/format"))
    assert mounted.sh("cat sample/format").stdout == "key: ipv4\nvalue: auto\n"
    assert mounted.sh("ls sample/entries").stdout.split() == NAMES
    assert mounted.sh("cat sample/entries/{10.0.0.1,192.0.2.255}").stdout == "0\n1\n"
    found = mounted.sh("jq -r .key sample/entries.jsonl | sort").stdout.split()
    assert found == NAMES
    accepted(mounted.sh("cd sample/entries; echo 7 > 10.0.0.2; rm 10.0.0.1; mv 192.0.2.255 ::1"
                        " 2> /dev/null; mv 192.0.2.255 192.0.2.1; cat 10.0.0.2"))  # fmt: skip
    assert dump(sample) == {b"\x0a\0\0\2": u64(7), bytes([192, 0, 2, 1]): u64(1)}
    eventually(
        "old names are gone", lambda: not (mounted.path / f"sample/entries/{plain[1]}").exists()
    )
    error = mounted.sh("echo 5 > sample/entries/167772161").stderr
    assert error.endswith(INVALID)
    assert "expected an IPv4 address, got '167772161'" in mounted.error_log("sample")


@pytest.mark.parametrize(
    ("text", "reason", "line", "column"),
    [
        ("key: ipv6\n", "key: it has 4 bytes, and the format is for 16", "key: ipv6", 5),
        ("key: ipv5\n", "'ipv5' is no format of key: auto, hex, ", "key: ipv5", 5),
        ("keys: hex\n", "'keys' is no target: it is key, value, or a part", "keys: hex", 0),
        ("hex\n", "expected TARGET: FORMAT, got 'hex'", "hex", 0),
        ("percpu: sum\n", "percpu: the map is not per CPU", "percpu: sum", 8),
        ("value.x: hex\n", "value.x: __u64 has no field 'x'", "value.x: hex", 9),
        ("value: struct none\n", "value: no BTF of the map", "value: struct none",
         7),
        ("value: hex\nkey: ipv6\n", "key: it has 4 bytes", "key: ipv6", 5),
        ("value: hex\nvalue.x: be\nkey: hex\n", "value.x: ", "value.x: be", 9),
        ("value: hex\n\nkey ipv4\nkey: hex\n", "expected TARGET: FORMAT", "key ipv4", 0),
        ("key: ipv4\r\nvalue: ipv4\r\n", "value: it has 8 bytes", "value: ipv4", 7),
    ],
)  # fmt: skip
def test_what_does_not_fit_changes_nothing(
    mounted: Mount, text: str, reason: str, line: str, column: int
) -> None:
    sample_of(mounted)
    accepted(set_to(mounted, "key: ipv4\nvalue: ktime\n"))
    before = mounted.sh("cat sample/format sample/entries.jsonl")
    result = set_to(mounted, text)
    assert result.code == 1
    assert result.stderr.endswith(INVALID)
    _when, *excerpt = mounted.error_log("sample").splitlines()
    assert _when.split(": ", 1)[1].startswith(reason), _when
    assert "write format" in _when
    assert excerpt[0].rstrip("?") == f"    {line}"
    assert excerpt[1] == f"    {' ' * column}^"
    assert mounted.sh("cat sample/format sample/entries.jsonl") == before
    assert shown(mounted) == NAMES


def test_the_shell_says_what_is_refused(mounted: Mount) -> None:
    sample_of(mounted)
    result = mounted.sh("echo 'key: ipv6' > sample/format")
    assert result.code == 1
    assert result.stderr.endswith("write error: Invalid argument\n")
    result = mounted.sh("printf 'key: ipv6' > sample/format")  # known at close: printf tells
    assert result.code in (0, 1)
    assert settings(mounted) == {"key": "auto", "value": "auto"}


def test_auto_resets(mounted: Mount) -> None:
    sample_of(mounted)
    before = shown(mounted)
    accepted(set_to(mounted, "key: ipv4\nvalue: hex\n"))
    assert mounted.sh("cat sample/entries/192.0.2.255").stdout == '"0x1"\n'
    accepted(set_to(mounted, "key: auto\n"))
    assert settings(mounted) == {"key": "auto", "value": "hex"}
    assert shown(mounted) == before
    accepted(set_to(mounted, "value: auto\n"))
    assert settings(mounted) == {"key": "auto", "value": "auto"}


@pytest.mark.parametrize(
    "command",
    [
        'f=$(cat format); echo "$f" > format',
        "cat format > /tmp/$$.f; cp /tmp/$$.f format; cat /tmp/$$.f > format; rm /tmp/$$.f",
        "cat format | tee format.none 2> /dev/null > format",
        "echo > format",
        "true > format",
        "touch format",
    ],
)
def test_writing_back_what_was_read_changes_nothing(mounted: Mount, command: str) -> None:
    mounted.pin("sample", make_map(MapType.PERCPU_HASH, value="config"))
    text = "key: ipv4\nvalue.port: hex\nvalue.label: hex\nvalue.mode: int\npercpu: sum\n"
    accepted(set_to(mounted, text))
    before = settings(mounted)
    assert before == dict(line.split(": ") for line in text.splitlines()) | {"value": "auto"}
    mounted.sh(f"cd sample; {command}")
    assert settings(mounted) == before
    assert mounted.error_log("sample") == ""


def test_lines_are_added_one_by_one(mounted: Mount) -> None:
    mounted.pin("sample", make_map(value="config"))
    result = mounted.sh(
        "cd sample; echo 'key: ipv4' > format; echo 'value.port: hex' >> format;"
        " exec 3> format; echo 'value.mode: int' >&3; echo 'value.port: be' >&3; exec 3>&-;"
        " echo 'value.label: hex' | dd of=format status=none; cat format"
    )
    assert (result.code, result.stderr) == (0, "")
    assert sorted(result.stdout.splitlines()) == [
        "key: ipv4", "value.label: hex", "value.mode: int", "value.port: be", "value: auto",
    ]  # fmt: skip


def test_a_new_whole_has_none_of_the_old_parts(mounted: Mount) -> None:
    mounted.pin("sample", make_map(key="pair", value="pair"))
    accepted(set_to(mounted, "value.first: ipv4\nvalue.second: hex\nkey.first: ipv4\n"))
    accepted(set_to(mounted, "value: hex\n"))
    assert settings(mounted) == {"key": "auto", "key.first": "ipv4", "value": "hex"}
    accepted(set_to(mounted, "value: auto\n"))
    assert settings(mounted) == {"key": "auto", "key.first": "ipv4", "value": "auto"}
    accepted(set_to(mounted, "value.first: be\nvalue: struct pair\n"))
    assert settings(mounted)["value.first"] == "be"
    accepted(set_to(mounted, "value: struct pair\n"))  # which it was already: a reset of its parts
    assert "value.first" not in settings(mounted)


@pytest.mark.parametrize(
    ("value", "form", "text", "data"),
    [
        ("u64", "value: ktime", "1.5", u64(15 * 10**8)),
        ("u64", "value: be", "258", bytes(6) + b"\1\2"),
        ("u64", "value: hex", "0x10", u64(16)),
        ("u64", "value: int", "-1", b"\xff" * 8),
        ("u64", "value: str", "eth0", b"eth0\0\0\0\0"),
        ("u64", "value: struct pair", '{"second": -5}', struct.pack("=Ii", 0, -5)),
        ("u32", "value: enum mode", "MODE_BLOCK", u32(2)),
        ("u32", "value: ipv4", "10.0.0.1", b"\x0a\0\0\1"),
        ("pair", "value.first: ipv4", "{first: 10.0.0.1, second: 3}", b"\x0a\0\0\1" + u32(3)),
        ("text", "value: ipv6", "2001:db8::1", b"\x20\1\x0d\xb8" + bytes(11) + b"\1"),
    ],
)
def test_values_are_written_in_the_new_form(
    mounted: Mount, value: str, form: str, text: str, data: bytes
) -> None:
    sample = mounted.pin("sample", make_map(value=value))
    accepted(set_to(mounted, f"{form}\n"))
    accepted(mounted.sh(f"echo '{text}' > sample/entries/1; cp sample/entries/1 sample/entries/2"))
    assert dump(sample) == {u32(1): data, u32(2): data}
    accepted(mounted.sh('cd sample/entries; v=$(cat 1); echo "$v" > 1'))
    assert dump(sample) == {u32(1): data, u32(2): data}
    sizes = mounted.sh("cd sample/entries; stat -c %s 1; wc -c < 1").stdout.split()
    assert sizes[0] == sizes[1]


def test_sizes_and_times_follow_the_format(mounted: Mount) -> None:
    sample_of(mounted)
    file = mounted.path / "sample/format"
    for text in ("key: ipv4\n", "value: ktime\n", "key: auto\nvalue: auto\n"):
        file.write_text(text)
        for path in (file, *(mounted.path / "sample/entries").iterdir()):
            with path.open("rb") as opened:
                assert os.fstat(opened.fileno()).st_size == len(opened.read())


# How long a format stays.


def test_a_format_outlives_the_caches(mounted: Mount) -> None:
    sample_of(mounted)
    accepted(set_to(mounted, "key: ipv4\nvalue: hex\n"))
    for _ in range(3):
        forget(mounted)
        assert shown(mounted) == NAMES
        assert settings(mounted) == {"key": "ipv4", "value": "hex"}


@pytest.mark.parametrize("how", ["mount", "bpffs"])
def test_a_format_is_for_what_is_pinned_next_as_well(mounted: Mount, how: str) -> None:
    sample_of(mounted)
    accepted(set_to(mounted, "key: ipv4\nvalue: hex\n"))
    if how == "mount":
        accepted(mounted.sh("rmdir sample"))
    else:
        os.unlink(mounted.source / "sample")
    again = make_map(value="u32")
    again.update(ADDRESSES[0], u32(16))
    mounted.pin("sample", again)
    eventually("the new one is seen", lambda: shown(mounted) == NAMES[:1])
    assert mounted.sh("cat sample/entries/10.0.0.1").stdout == '"0x10"\n'
    os.unlink(mounted.source / "sample")
    mounted.pin("sample", make_map(key="text", value="u32")).update(
        b"name".ljust(16, b"\0"), u32(1)
    )
    eventually("the new one is seen", lambda: shown(mounted) == ["name"])
    assert settings(mounted) == {"key": "auto", "value": "hex"}
    info = json.loads((mounted.path / "sample/info.json").read_text())
    assert info["format_problems"] == ["key: it has 16 bytes, and the format is for 4"]


def test_a_format_goes_along_with_a_pin(mounted: Mount) -> None:
    sample_of(mounted)
    accepted(set_to(mounted, "key: ipv4\n"))
    accepted(mounted.sh("mkdir there; mv sample other; mv other there/sample"))
    assert shown(mounted, "there/sample") == NAMES
    accepted(mounted.sh("mv there elsewhere"))
    assert shown(mounted, "elsewhere/sample") == NAMES
    sample_of(mounted)
    assert settings(mounted) == {"key": "auto", "value": "auto"}


def test_what_was_at_a_name_before_is_not_for_what_comes_to_another(mounted: Mount) -> None:
    """A name that a pin has left has no format of the pin that once was where it went."""
    sample_of(mounted, "old")
    accepted(set_to(mounted, "key: ipv4\n", "old"))
    sample_of(mounted, "new")
    accepted(mounted.sh("rmdir old; mv new old"))
    assert settings(mounted, "old") == {"key": "auto", "value": "auto"}
    sample_of(mounted, "new")
    assert settings(mounted, "new") == {"key": "auto", "value": "auto"}


def test_pins_that_are_exchanged_take_their_formats_along(mounted: Mount) -> None:
    sample_of(mounted, "one")
    sample_of(mounted, "two")
    accepted(set_to(mounted, "key: ipv4\n", "one"))
    accepted(set_to(mounted, "value: hex\n", "two"))
    rename(mounted.path / "one", mounted.path / "two", RenameFlags.EXCHANGE)
    for _ in range(2):
        assert settings(mounted, "two") == {"key": "ipv4", "value": "auto"}
        assert settings(mounted, "one") == {"key": "auto", "value": "hex"}
        forget(mounted)


def test_a_part_that_was_dropped_is_no_problem_later(mounted: Mount) -> None:
    mounted.pin("sample", make_map(value="pair"))
    accepted(set_to(mounted, "value.first: ipv4\n"))
    accepted(set_to(mounted, "value: hex\n"))
    os.unlink(mounted.source / "sample")
    again = mounted.pin("sample", make_map(value="pair"))
    info = mounted.path / "sample/info"
    eventually("the new one is seen", lambda: f"id: {again.info.id}\n" in info.read_text())
    assert settings(mounted) == {"key": "auto", "value": "hex"}
    assert "format_problems" not in info.read_text()


def test_two_pins_of_one_map_have_formats_of_their_own(mounted: Mount) -> None:
    sample = sample_of(mounted)
    mounted.pin("again", sample)
    accepted(set_to(mounted, "key: ipv4\n"))
    assert shown(mounted) == NAMES
    assert NAMES[0] not in shown(mounted, "again")


def test_a_format_is_gone_with_the_mount(mounter: Mounter) -> None:
    mount = mounter()
    sample_of(mount)
    accepted(set_to(mount, "key: ipv4\n"))
    assert shown(mount) == NAMES
    mount.end()
    again = mounter()
    assert settings(again) == {"key": "auto", "value": "auto"}
    assert NAMES[0] not in shown(again)


# Types by name.


def test_a_type_of_the_map(mounted: Mount) -> None:
    sample = mounted.pin("sample", make_map(value="u64"))
    sample.update(u32(1), struct.pack("=Ii", 7, -2))
    accepted(set_to(mounted, "value: struct pair\nvalue.first: hex\n"))
    assert mounted.sh("cat sample/entries/1").stdout == '{"first": "0x7", "second": -2}\n'
    accepted(mounted.sh("echo '{second: 5}' > sample/entries/1"))
    assert dump(sample) == {u32(1): struct.pack("=Ii", 7, 5)}


def test_a_type_of_the_kernel(mounted: Mount) -> None:
    sample = mounted.pin("sample", make_map(key=4, value=16))
    sample.update(u32(1), struct.pack("=qq", 1, -2))
    accepted(set_to(mounted, "value: struct __kernel_timespec\nkey: enum bpf_map_type\n"))
    name = "BPF_MAP_TYPE_HASH"
    assert shown(mounted) == [name]
    assert json.loads((mounted.path / f"sample/entries/{name}").read_text()) == {
        "tv_sec": 1,
        "tv_nsec": -2,
    }
    accepted(mounted.sh("cd sample/entries; echo '{tv_nsec: 9}' > BPF_MAP_TYPE_ARRAY"))
    assert dump(sample)[u32(2)] == struct.pack("=qq", 0, 9)
    refused = set_to(mounted, "value: struct task_struct\n")
    assert refused.stderr.endswith(INVALID)
    assert "value: it has 16 bytes, and struct task_struct has " in mounted.error_log("sample")


def test_global_variables(mounted: Mount) -> None:
    sample = mounted.pin("sample", section_map())
    sample.update(u32(0), ADDRESSES[0] + u32(1))
    accepted(set_to(mounted, "value.first: ipv4\n"))
    assert mounted.sh("cat sample/vars/{first,second}").stdout == '"10.0.0.1"\n1\n'
    accepted(mounted.sh("echo 10.0.0.2 > sample/vars/first"))
    assert dump(sample) == {u32(0): b"\x0a\0\0\2" + u32(1)}
    accepted(set_to(mounted, "value: hex\n"))
    number = int.from_bytes(b"\x0a\0\0\2", "little")
    result = mounted.sh("cat sample/vars/{first,second} sample/entries/0")
    assert result.stdout == f'{number}\n1\n"0a00000201000000"\n'


# Permissions.


def as_nobody(mount: Mount, command: str) -> Result:
    """Run a bash command as another user."""
    user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    return run([*user, "bash", "-c", command], cwd=mount.path)


def has_mode(mount: Mount, mode: int) -> bool:
    """Whether the file has these permission bits."""
    return os.stat(mount.path / "sample/format").st_mode & 0o777 == mode


def test_who_may_read_and_write_it(mounter: Mounter) -> None:
    mount = mounter("-o", "allow_other")
    mount.sh("chmod 755 .")
    sample_of(mount)
    for mode, reads, writes in [(0o600, False, False), (0o644, True, False), (0o666, True, True)]:
        os.chmod(mount.source / "sample", mode)
        eventually("the mode is seen", functools.partial(has_mode, mount, mode))
        assert (as_nobody(mount, "cat sample/format").code == 0) == reads
        written = as_nobody(mount, "echo 'key: ipv4' > sample/format")
        assert (written.code == 0) == writes
        assert written.stderr.endswith("" if writes else "Permission denied\n")
        assert (settings(mount)["key"] == "ipv4") == writes


def test_a_frozen_map_can_still_be_shown_in_another_way(mounted: Mount) -> None:
    sample_of(mounted)
    accepted(mounted.sh("echo 1 > sample/frozen; echo 'key: ipv4' > sample/format"))
    assert shown(mounted) == NAMES


# Sums over CPUs.


@pytest.mark.parametrize("kind", [MapType.PERCPU_HASH, MapType.LRU_PERCPU_HASH])
def test_sums(mounted: Mount, kind: MapType) -> None:
    sample = mounted.pin("sample", make_map(kind))
    sample.update(u32(1), b"".join(u64(10 + cpu) for cpu in range(CPUS)))
    each = [10 + cpu for cpu in range(CPUS)]
    assert settings(mounted) == {"key": "auto", "value": "auto", "percpu": "each"}
    assert json.loads((mounted.path / "sample/entries/1").read_text()) == each
    accepted(mounted.sh("echo 'percpu: sum' > sample/format"))
    assert settings(mounted)["percpu"] == "sum"
    assert mounted.sh("cat sample/entries/1").stdout == f"{sum(each)}\n"
    assert mounted.sh("cat sample/entries.jsonl").stdout == f'{{"key": 1, "value": {sum(each)}}}\n'
    before = dump(sample)
    eventually(
        "nobody may write it",
        lambda: os.stat(mounted.path / "sample/entries/1").st_mode & 0o777 == 0o400,
    )
    for command in ("echo 5 > sample/entries/1", "echo 5 > sample/entries/2", "truncate -s 0 "
                    "sample/entries/1", "cp sample/entries/1 sample/entries/3"):  # fmt: skip
        result = mounted.sh(command)
        if "truncate" not in command:
            assert result.code == 1, command
            assert result.stderr.endswith(("Permission denied\n", "Operation not permitted\n")), (
                result
            )
        assert dump(sample) == before
    accepted(
        mounted.sh("mv sample/entries/1 sample/entries/4; echo 'percpu: each' > sample/format")
    )
    assert json.loads((mounted.path / "sample/entries/4").read_text()) == each
    accepted(mounted.sh("echo 5 > sample/entries/4; echo 6 > sample/entries/5"))
    assert dump(sample) == {u32(4): value_of(sample, 5), u32(5): value_of(sample, 6)}
    accepted(mounted.sh("echo 'percpu: sum' > sample/format; rm sample/entries/4"))
    assert shown(mounted) == ["5"]


def test_an_open_file_does_not_become_writable_as_a_sum(mounted: Mount) -> None:
    """A descriptor that was opened before stays what it is, and says what is wrong."""
    sample = mounted.pin("sample", make_map(MapType.PERCPU_HASH))
    sample.update(u32(1), value_of(sample, 7))
    with (mounted.path / "sample/entries/1").open("r+b", buffering=0) as file:
        accepted(mounted.sh("echo 'percpu: sum' > sample/format"))
        with pytest.raises(OSError, match=r"Invalid argument|not permitted|denied"):
            file.write(b"5\n")
    assert dump(sample) == {u32(1): value_of(sample, 7)}
    assert "set `percpu: each`" in mounted.error_log("sample")
