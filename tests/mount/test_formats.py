"""`format` and the configuration file: other ways to show keys and values."""

from __future__ import annotations

import copy
import functools
import json
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from support.maps import dump, make_map, pin, types, u32, u64, value_of
from support.mounting import COMMAND, Mount, SharedMount, mounts_at, temporary_directory
from support.network import compile_program
from support.renaming import rename
from support.sections import section_map
from support.shell import Result, run
from support.waiting import eventually

from fusefs.bpf.bpffs import RenameFlags
from fusefs.bpf.cpus import possible_cpus
from fusefs.bpf.map import Map, MapType
from fusefs.configuration import ConfigurationError, read_formats

Mounter = Callable[..., Mount]

CPUS = possible_cpus()
ADDRESSES = [bytes([10, 0, 0, 1]), bytes([192, 0, 2, 255])]
NAMES = ["10.0.0.1", "192.0.2.255"]
INVALID = "Invalid argument\n"


@pytest.fixture
def mounted(shared: SharedMount) -> Iterator[Mount]:
    """A directory in a mount. It is a new one for each test, since formats stay for names."""
    with shared.borrowed() as mount:
        inside = copy.copy(mount)
        inside.source, inside.path = mount.source / "inside", mount.path / "inside"
        os.mkdir(inside.source)
        yield inside


def sample_of(mount: Mount, name: str = "sample") -> Map:
    """A hash of bare numbers, pinned; two of its keys are addresses to whoever knows."""
    sample = mount.pin(name, make_map())
    for number, address in enumerate(ADDRESSES):
        sample.update(address, u64(number))
    return sample


def shown(mount: Mount, name: str = "sample") -> list[str]:
    """The names of a map's entries."""
    return sorted(os.listdir(mount.path / name / "entries"))


def settings(mount: Mount, name: str = "sample") -> dict[str, str]:
    """What `format` shows."""
    lines = (mount.path / name / "format").read_text().splitlines()
    return dict(line.split(": ", 1) for line in lines)


def set_to(mount: Mount, text: str, name: str = "sample") -> Result:
    """Write lines to `format`, as a shell does."""
    return mount.sh(f"cat > {name}/format", given=text.encode())


def accepted(result: Result) -> None:
    assert (result.code, result.stderr) == (0, ""), result


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
        ("value: struct none\n", "value: there is no struct none in the BTF", "value: struct none",
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


def forget(mount: Mount) -> None:
    """Have the kernel forget all that it has looked up."""
    mount.sh("ls -R")
    Path("/proc/sys/vm/drop_caches").write_text("2\n")


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


# The configuration file.


class Configured:
    """A bpffs, and mounts of it with a configuration."""

    def __init__(self, mounter: Mounter, directory: Path, source: Path) -> None:
        self.mounter = mounter
        self.directory = directory
        self.source = source

    def mount(self, text: str, *options: str) -> Mount:
        """A mount with this configuration."""
        file = self.directory / "config.toml"
        file.write_text(text)
        return self.mounter("-o", f"config={file}", *options)


@pytest.fixture
def configured(mounter: Mounter, tmp_path: Path, bpffs: Path) -> Configured:
    """Makes mounts with a configuration."""
    return Configured(mounter, tmp_path, bpffs)


def test_patterns(configured: Configured) -> None:
    for path in ("one", "fw/one", "fw/two", "fw/in/side/one", "other/two"):
        file = configured.source / path
        file.parent.mkdir(parents=True, exist_ok=True)
        pin(file, make_map(value="pair"))
    mount = configured.mount(
        """
        [format."**"]
        value = "hex"
        [format."*"]
        key = "hex"
        [format."fw/*"]
        key = "ipv4"
        value = "auto"
        value."first" = "be"
        [format."/fw/two/"]
        value = "struct  pair"
        "value.second" = "hex"
        [format."**/one"]
        "key" = "be"
        [format."fw/**/one"]
        key = "int"
        [format."[!f]*/tw?"]
        key = "str"
        """.replace(
            'value = "auto"\n        value."first"', '"value" = "auto"\n        "value.first"'
        )
    )
    found = {path: settings(mount, path) for path in ("one", "fw/one", "fw/two", "other/two")}
    assert found == {
        "one": {"key": "be", "value": "hex"},
        "fw/one": {"key": "int", "value": "auto", "value.first": "be"},
        "fw/two": {
            "key": "ipv4", "value": "struct pair", "value.first": "be", "value.second": "hex",
        },
        "other/two": {"key": "str", "value": "hex"},
    }  # fmt: skip
    assert settings(mount, "fw/in/side/one") == {"key": "int", "value": "hex"}


def test_what_is_written_wins_over_the_configuration(configured: Configured) -> None:
    mount = configured.mount('[format."*"]\nkey = "ipv4"\nvalue = "hex"\n')
    sample_of(mount)
    assert settings(mount) == {"key": "ipv4", "value": "hex"}
    accepted(set_to(mount, "key: auto\nvalue: ktime\n"))
    forget(mount)
    assert settings(mount) == {"key": "auto", "value": "ktime"}
    accepted(mount.sh("mv sample other"))
    assert settings(mount, "other") == {"key": "auto", "value": "ktime"}
    sample_of(mount)
    assert settings(mount) == {"key": "ipv4", "value": "hex"}


def test_a_renamed_pin_has_the_rules_of_its_new_name(configured: Configured) -> None:
    mount = configured.mount('[format.one]\nkey = "ipv4"\n[format.two]\nvalue = "hex"\n')
    sample_of(mount, "one")
    assert settings(mount, "one") == {"key": "ipv4", "value": "auto"}
    accepted(mount.sh("mv one two"))
    wanted = {"key": "auto", "value": "hex"}
    eventually("it has the new rules", lambda: settings(mount, "two") == wanted, 1)
    forget(mount)
    assert settings(mount, "two") == wanted


def test_quoted_and_bare_paths(configured: Configured) -> None:
    pin(configured.source / "sample", make_map(key="pair", value="config"))
    mount = configured.mount(
        """
        [format.sample]
        key.first = "ipv4"
        "key.second" = "hex"
        value.port = "hex"
        'value.label' = "hex"
        """
    )
    assert settings(mount) == {
        "key": "auto", "value": "auto", "key.first": "ipv4", "key.second": "hex",
        "value.port": "hex", "value.label": "hex",
    }  # fmt: skip


def test_types_from_files(configured: Configured, tmp_path: Path) -> None:
    compiled = compile_program("xdp_count", tmp_path)
    blob = tmp_path / "blob.btf"
    blob.write_bytes(types().btf.blob())
    pin(configured.source / "flows", make_map(key=12, value=16))
    pin(configured.source / "pairs", make_map(key=4, value=8))
    mount = configured.mount(
        f"""
        btf = ["{compiled}", "{blob}"]
        [format.flows]
        key = "struct flow_key"
        "key.source" = "ipv4"
        "key.destination" = "ipv4"
        value = "struct flow"
        [format.pairs]
        key = "enum mode"
        value = "struct pair"
        """
    )
    name = "source=10.0.0.1,destination=10.0.0.2,protocol=6"
    accepted(mount.sh(f"echo '{{packets: 5}}' > flows/entries/{name}; cat flows/entries/{name}"))
    assert shown(mount, "flows") == [name]
    assert mount.sh(f"cat flows/entries/{name}").stdout == '{"packets": 5, "bytes": 0}\n'
    accepted(mount.sh("echo '{second: -1}' > pairs/entries/MODE_WATCH"))
    assert mount.sh("cat pairs/entries/*").stdout == '{"first": 0, "second": -1}\n'


def test_settings_that_do_not_fit_are_told(configured: Configured) -> None:
    pin(configured.source / "sample", make_map())
    pin(configured.source / "fine", make_map())
    mount = configured.mount(
        """
        [format.sample]
        key = "ipv6"
        value = "hex"
        "value.x" = "be"
        percpu = "sum"
        [format.fine]
        key = "ipv4"
        """
    )
    assert settings(mount) == {"key": "auto", "value": "hex"}
    info = json.loads((mount.path / "sample/info.json").read_text())
    assert sorted(info["format_problems"]) == [
        "key: it has 4 bytes, and the format is for 16",
        "percpu: the map is not per CPU",
        "value.x: __u64 has no field 'x'",
    ]
    assert mount.sh("grep -c format_problems sample/info").stdout == "1\n"
    assert "format_problems" not in (mount.path / "fine/info").read_text()
    accepted(mount.sh("echo 'key: ipv4' > sample/format"))
    assert settings(mount) == {"key": "ipv4", "value": "hex"}
    for _ in range(2):
        info = json.loads((mount.path / "sample/info.json").read_text())
        assert "key: it has 4 bytes, and the format is for 16" not in info["format_problems"]
        forget(mount)


@pytest.mark.parametrize(
    ("text", "reasons"),
    [
        ("[format\n", ["line 1"]),
        ("\n\nkey = \n", ["line 3"]),
        ("nonsense = 1\n", ["unknown key 'nonsense'", "btf and format"]),
        ('"non\\nsense" = 1\n', ["unknown key"]),
        ('[format."fw/*"]\nkey = "ipv5"\n', ["fw/*", "'ipv5' is no format of key"]),
        ('[format."fw/*"]\nkeys = "ipv4"\n', ["fw/*", "'keys' is no target"]),
        ('[format."fw/*"]\nvalue.a = 4\n', ["fw/*", "value.a: expected a string"]),
        ('[format."a\\nb"]\nkey = "x"\n', ["'x' is no format of key"]),
        ("format = 1\n", ["expected tables"]),
        ("[format]\nkey = 'hex'\n", ["expected a table for 'key'"]),
        ("btf = 1\n", ["btf: expected a list of file names"]),
        ('btf = ["/none"]\n', ["/none: No such file or directory"]),
        ('btf = ["/"]\n', ["/: Is a directory"]),
        ('btf = ["/etc/passwd"]\n', ["/etc/passwd"]),
        ('btf = ["/bin/true"]\n', ["/bin/true: the ELF file has no section .BTF"]),
        ('btf = ["a\\u0000b"]\n', ["btf"]),
        (f"x = {'[' * 5000}\n", []),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_configuration(tmp_path: Path, text: str, reasons: list[str]) -> None:
    file = tmp_path / "config.toml"
    file.write_text(text)
    refused(file, reasons)


def refused(file: Path, reasons: list[str]) -> None:
    """What is wrong is told in one line that names the file."""
    with pytest.raises(ConfigurationError) as caught:
        read_formats(str(file))
    said = str(caught.value)
    assert said.startswith(f"{file}: ")
    assert "\n" not in said
    for reason in reasons:
        assert reason in said


@pytest.mark.parametrize("mode", [[], ["-f"]], ids=["background", "foreground"])
@pytest.mark.parametrize(
    ("text", "reason"),
    [("key = \n", "line 1"), ('btf = ["/none"]', "/none: No such file or directory")],
)
def test_the_command_says_it(
    bpffs: Path, tmp_path: Path, mode: list[str], text: str, reason: str
) -> None:
    file = tmp_path / "config.toml"
    file.write_text(text)
    with temporary_directory() as parent:
        place = parent / "mount"
        place.mkdir()
        result = run([*COMMAND, bpffs, place, "-o", f"config={file}", *mode], seconds=20)
        assert (result.code, result.stdout) == (1, ""), result
        assert mounts_at(place) == []
    assert result.stderr.startswith(f"bpf-fusefs: {file}: ")
    assert result.stderr.count("\n") == 1
    assert reason in result.stderr


@pytest.mark.parametrize("made", ["missing", "directory", "not UTF-8"])
def test_a_configuration_that_cannot_be_read(tmp_path: Path, made: str) -> None:
    file = tmp_path / "config.toml"
    reason = "there is no such file"
    if made == "directory":
        file.mkdir()
        reason = "Is a directory"
    elif made == "not UTF-8":
        file.write_bytes(b"# \xff\n")
        reason = "it is not UTF-8"
    refused(file, [reason])


@pytest.mark.parametrize("size", [4, 1 << 40, 1 << 62, (1 << 64) - 1])
def test_an_elf_file_with_a_section_of_a_wrong_size(tmp_path: Path, size: int) -> None:
    data = bytearray(compile_program("xdp_count", tmp_path).read_bytes())
    with (tmp_path / "xdp_count.o").open("rb") as file:
        number = ELFFile(file).get_section_index(".BTF")
    assert number
    (table,) = struct.unpack_from("=Q", data, 40)
    struct.pack_into("=Q", data, table + number * 64 + 32, size)
    broken_file(tmp_path, bytes(data))


@pytest.mark.parametrize("change", ["cut", "section table", "header", "no sections", "empty"])
def test_a_broken_elf_file(tmp_path: Path, change: str) -> None:
    data = bytearray(compile_program("xdp_count", tmp_path).read_bytes())
    match change:
        case "cut":
            del data[len(data) // 2 :]
        case "section table":
            struct.pack_into("=Q", data, 40, 1 << 60)
        case "header":
            data[4:] = b"\xff" * (len(data) - 4)
        case "no sections":
            struct.pack_into("=H", data, 60, 0)
        case _:
            del data[4:]
    broken_file(tmp_path, bytes(data))


def broken_file(directory: Path, data: bytes) -> None:
    """A configuration that names an ELF file with this content is refused."""
    broken = directory / "broken.o"
    broken.write_bytes(data)
    file = directory / "config.toml"
    file.write_text(f'btf = ["{broken}"]\n')
    refused(file, [f"btf: {broken}: "])


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


def test_a_read_only_mount(configured: Configured) -> None:
    mount = configured.mount('[format."*"]\nkey = "ipv4"\n', "-o", "ro")
    sample_of(mount)
    assert shown(mount) == NAMES
    result = mount.sh("echo 'key: hex' > sample/format")
    assert result.stderr.endswith("Read-only file system\n")
    assert settings(mount) == {"key": "ipv4", "value": "auto"}


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


def test_sums_of_structs(configured: Configured) -> None:
    mount = configured.mount('[format."*"]\npercpu = "sum"\n"value.port" = "uint"\n')
    sample = mount.pin("sample", make_map(MapType.PERCPU_ARRAY, value="config", max_entries=1))
    label = b"lan".ljust(18, b"\0")
    value = struct.pack("=?3xIH", True, 2, 443) + label
    sample.update(u32(0), value.ljust(32, b"\0") * CPUS)
    text = mount.sh("cat sample/entries/0").stdout
    port = CPUS * 443
    assert json.loads(text) == {"enabled": True, "mode": "MODE_BLOCK", "port": port, "label": "lan"}
    off = struct.pack("=?3xIH", False, 1, 1) + label
    sample.update(u32(0), (value.ljust(32, b"\0") * (CPUS - 1)) + off.ljust(32, b"\0"))
    wanted = {"enabled": None, "mode": None, "port": port - 442, "label": "lan"}
    if CPUS > 1:
        assert json.loads((mount.path / "sample/entries/0").read_text()) == wanted
    assert "format_problems" not in (mount.path / "sample/info").read_text()


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
