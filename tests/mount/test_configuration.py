"""The configuration file: formats by the paths of pins."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from support.formats import NAMES, accepted, forget, sample_of, set_to, settings, shown
from support.maps import make_map, pin, types, u32
from support.mounting import COMMAND, Mount, mounts_at, temporary_directory
from support.network import compile_program
from support.shell import run
from support.waiting import eventually

from fusefs.bpf.cpus import possible_cpus
from fusefs.bpf.map import MapType
from fusefs.configuration import ConfigurationError, read_formats

Mounter = Callable[..., Mount]

CPUS = possible_cpus()


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
        [format.fine]
        key = "ipv4"
        [format."**"]
        percpu = "sum"
        """
    )
    assert settings(mount) == {"key": "auto", "value": "hex"}
    info = json.loads((mount.path / "sample/info.json").read_text())
    assert sorted(info["format_problems"]) == [
        "key: it has 4 bytes, and the format is for 16",
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


def test_a_read_only_mount(configured: Configured) -> None:
    mount = configured.mount('[format."*"]\nkey = "ipv4"\n', "-o", "ro")
    sample_of(mount)
    assert shown(mount) == NAMES
    result = mount.sh("echo 'key: hex' > sample/format")
    assert result.stderr.endswith("Read-only file system\n")
    assert settings(mount) == {"key": "ipv4", "value": "auto"}


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
