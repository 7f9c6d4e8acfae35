"""Names of keys: prefixes of LPM tries, keys that are too long for a name, and odd texts."""

from __future__ import annotations

import errno
import ipaddress
import json
import os
import random
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.maps import NO_PREALLOC, dump, make_map, u32, u64
from support.mounting import Mount
from support.waiting import eventually

from fusefs.bpf.btf_build import BtfBuilder
from fusefs.bpf.btf_object import BtfObject
from fusefs.bpf.map import Map, MapType
from fusefs.text.names import key_digest

Mounter = Callable[..., Mount]


def typed_map(
    key: Callable[[BtfBuilder, int], int], size: int, map_type: MapType = MapType.HASH
) -> Map:
    """A map to u32 with keys of the type that `key` makes."""
    made = BtfBuilder()
    number = made.integer("__u32", 4)
    key_type = key(made, number)
    with BtfObject.load(made.build()) as btf:
        return Map.create(
            map_type,
            key_size=size,
            value_size=4,
            max_entries=4096,
            name="sample",
            flags=NO_PREALLOC if map_type == MapType.LPM_TRIE else 0,
            btf=btf,
            key_type=key_type,
            value_type=number,
        )


# LPM tries.

Network = ipaddress.IPv4Interface | ipaddress.IPv6Interface


def trie(size: int = 4, max_entries: int = 4096) -> Map:
    """An LPM trie without types."""
    return make_map(
        MapType.LPM_TRIE, key=4 + size, value=4, max_entries=max_entries, flags=NO_PREALLOC
    )


def prefix(text: str) -> bytes:
    """A key of a trie, as 10.1.0.0/16."""
    address, _, length = text.partition("/")
    return struct.pack("=I", int(length)) + ipaddress.ip_address(address).packed


def hexed(number: int) -> str:
    """A value of a trie, as its files show it."""
    return f'"{u32(number).hex()}"\n'


def listed(mount: Mount, name: str = "sample") -> list[str]:
    """The names of the entries."""
    return sorted(os.listdir(mount.path / name / "entries"))


def test_a_trie_with_the_tools_of_every_day(mounted: Mount) -> None:
    sample = mounted.pin("sample", trie())
    sample.update(prefix("10.0.0.0/8"), u32(8))
    sample.update(prefix("10.1.0.0/16"), u32(16))
    result = mounted.sh(
        "cd sample; ls entries; cat entries/10.1.0.0_16 count; echo 24 > entries/10.1.2.0_24;"
        " rm entries/10.0.0.0_8; mv entries/10.1.0.0_16 entries/192.168.0.0_16;"
        " cp entries/10.1.2.0_24 entries/0.0.0.0_0; ls entries; stat -c %s entries/0.0.0.0_0"
    )
    assert (result.code, result.stderr) == (0, "")
    assert result.stdout == (
        f"10.0.0.0_8\n10.1.0.0_16\n{hexed(16)}2\n0.0.0.0_0\n10.1.2.0_24\n192.168.0.0_16\n11\n"
    )
    assert dump(sample) == {
        prefix("10.1.2.0/24"): u32(24),
        prefix("192.168.0.0/16"): u32(16),
        prefix("0.0.0.0/0"): u32(24),
    }
    lines = (mounted.path / "sample/entries.jsonl").read_text().splitlines()
    assert {json.loads(line)["key"] for line in lines} == {
        "0.0.0.0/0", "10.1.2.0/24", "192.168.0.0/16",
    }  # fmt: skip


def test_only_the_very_prefix_has_a_file(mounted: Mount) -> None:
    sample = mounted.pin("sample", trie())
    sample.update(prefix("10.0.0.0/8"), u32(8))
    for name in ("10.1.0.0_16", "10.0.0.0_9", "10.0.0.0_7", "10.0.0.0_32", "0.0.0.0_0"):
        result = mounted.sh(f"cat sample/entries/{name}")
        assert result.stderr.endswith("No such file or directory\n"), name
        assert mounted.sh(f"rm sample/entries/{name}").code == 1
        assert mounted.sh(f"mv sample/entries/{name} sample/entries/1.1.1.1_32").code == 1
    for spelling in ("10.0.0.0_8", "10.255.1.2_8", "10.0.0.0_0x8"):
        assert mounted.sh(f"cat sample/entries/{spelling}").stdout == hexed(8)
    assert mounted.sh("set -C; echo 5 > sample/entries/10.1.0.0_16").code == 0
    assert mounted.sh("set -C; echo 6 > sample/entries/10.1.7.7_16").code == 1
    assert dump(sample) == {prefix("10.0.0.0/8"): u32(8), prefix("10.1.0.0/16"): u32(5)}


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("seed", range(4))
def test_random_tries(mounted: Mount, version: int, seed: int) -> None:
    """A name is there if and only if that prefix is in the trie, whatever is around it."""
    chance = random.Random(seed)
    bits = 32 if version == 4 else 128
    sample = mounted.pin("sample", trie(bits // 8))
    base = chance.getrandbits(bits)

    def drawn() -> Network:
        """A prefix that is near to others, often one of those."""
        length = chance.choice([0, 1, 7, 8, 9, 16, 23, 24, 25, 31, 32, bits - 1, bits])
        address = base ^ (chance.getrandbits(3) << chance.randrange(bits - 2))
        kind = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
        network = ipaddress.ip_network((kind(address).packed, length), strict=False)
        return ipaddress.ip_interface(network.with_prefixlen)

    model: dict[Network, int] = {}
    for number in range(60):
        one = drawn()
        sample.update(prefix(one.with_prefixlen), u32(number))
        model[one] = number
        if chance.random() < 0.2:
            gone = chance.choice(list(model))
            sample.delete(prefix(gone.with_prefixlen))
            del model[gone]
    names = {name(one): number for one, number in model.items()}
    assert listed(mounted) == sorted(names)
    directory = mounted.path / "sample/entries"
    asked = {name(drawn()) for _ in range(300)} | names.keys()
    asked |= {name(ipaddress.ip_interface(wider)) for one in model for wider in around(one)}
    for one_name in asked:
        try:
            found = (directory / one_name).read_text()
        except FileNotFoundError:
            assert one_name not in names
        else:
            assert found == hexed(names[one_name]), one_name


def name(one: Network) -> str:
    """The name of a prefix's file."""
    return one.with_prefixlen.replace("/", "_")


def around(one: Network) -> Iterator[str]:
    """Prefixes beside this one: it with a bit more or less, and its neighbour."""
    network = one.network
    if network.prefixlen:
        yield network.supernet().with_prefixlen
        sibling = int(network.network_address) ^ (1 << network.max_prefixlen - network.prefixlen)
        packed = sibling.to_bytes(network.max_prefixlen // 8, "big")
        yield f"{ipaddress.ip_address(packed)}/{network.prefixlen}"
    if network.prefixlen < network.max_prefixlen:
        for below in network.subnets():
            yield below.with_prefixlen


def test_bits_after_the_prefix_are_shown(mounted: Mount) -> None:
    sample = mounted.pin("sample", trie())
    assert mounted.sh("echo 1 > sample/entries/10.1.3.77_24").code == 0
    assert listed(mounted) == ["10.1.3.77_24"]
    assert dump(sample) == {prefix("10.1.3.77/24"): u32(1)}
    # They are one prefix, and so one file: mv(1) sees that, and rename(2) does nothing.
    assert mounted.sh("cd sample/entries; mv 10.1.3.77_24 10.1.3.0_24").code in (0, 1)
    entries = mounted.path / "sample/entries"
    os.rename(entries / "10.1.3.77_24", entries / "10.1.3.0_24")
    assert list(dump(sample).values()) == [u32(1)]
    assert mounted.sh("cd sample/entries; mv 10.1.3.5_24 10.1.4.0_24; ls").stdout == "10.1.4.0_24\n"
    assert dump(sample) == {prefix("10.1.4.0/24"): u32(1)}
    assert mounted.sh("cd sample/entries; rm 10.1.4.200_24; ls").stdout == ""
    assert dump(sample) == {}


def test_two_spellings_are_one_file(mounted: Mount) -> None:
    sample = mounted.pin("sample", trie())
    sample.update(prefix("10.1.3.77/24"), u32(1))
    entries = mounted.path / "sample/entries"
    inodes = {os.stat(entries / f"10.1.3.{last}_24").st_ino for last in (0, 77, 255)}
    assert len(inodes) == 1
    for number, last in enumerate((0, 77, 255, 3), 7):
        (entries / f"10.1.3.{last}_24").write_text(f"{number}\n")
        assert list(dump(sample).values()) == [u32(number)]
        for other in (0, 77, 200):
            assert (entries / f"10.1.3.{other}_24").read_text() == hexed(number)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("10.1.0.0_33", "a prefix of 8 bytes has at most 32 bits"),
        ("10.1.0.0", "expected a prefix and its length in bits, as 10.1.0.0_8"),
        ("10.1.0_16", "expected an IPv4 address, got '10.1.0'"),
        ("::_16", "expected an IPv4 address, got '::'"),
    ],
)
def test_what_is_no_prefix(mounted: Mount, wrong: str, reason: str) -> None:
    sample = mounted.pin("sample", trie())
    assert mounted.sh(f"echo 5 > sample/entries/{wrong}").stderr.endswith("Invalid argument\n")
    assert reason in mounted.error_log("sample")
    assert mounted.sh(f"cat sample/entries/{wrong}").code == 1
    assert dump(sample) == {}


def test_ipv6(mounted: Mount) -> None:
    sample = mounted.pin("sample", trie(16))
    result = mounted.sh(
        "cd sample/entries; echo 1 > 2001:db8::_32; echo 2 > 2001:DB8:0:1::%2F64; echo 3 > ::_0;"
        " ls; cat 2001:db8:0:1::_64; mv ::_0 ::1_128; rm 2001:db8::_32; ls"
    )
    assert (result.code, result.stderr) == (0, ""), result
    first, second = ["2001:db8:0:1::_64", "2001:db8::_32", "::_0"], ["2001:db8:0:1::_64", "::1_128"]
    lines = result.stdout.splitlines()
    assert sorted(lines[:3]) == sorted(first)
    assert lines[3] == hexed(2).strip()
    assert sorted(lines[4:]) == sorted(second)
    assert dump(sample) == {prefix("2001:db8:0:1::/64"): u32(2), prefix("::1/128"): u32(3)}


def test_a_full_trie(mounted: Mount) -> None:
    mounted.pin("sample", trie(max_entries=1))
    result = mounted.sh("cd sample/entries; echo 1 > 10.0.0.0_8; echo 2 > 10.1.0.0_16")
    assert result.stderr.endswith("No space left on device\n")
    result = mounted.sh("cd sample/entries; mv 10.0.0.0_8 10.9.9.9_8; ls")
    assert (listed(mounted), len(result.stdout.split())) in (
        (["10.9.9.9_8"], 1),
        (["10.0.0.0_8"], 1),  # the kernel may want room for both
    )


def embedded(made: BtfBuilder, number: int) -> int:
    """struct { struct bpf_lpm_trie_key trie_key; __u32 address; }."""
    nothing = made.array(made.integer("__u8", 1), 0, number)
    inner = [("prefixlen", number, 0), ("data", nothing, 32)]
    key = made.struct("bpf_lpm_trie_key", 4, inner)
    return made.struct("key", 8, [("trie_key", key, 0), ("address", number, 32)])


def flat(made: BtfBuilder, number: int) -> int:
    """struct { __u32 prefixlen; __u32 address; }."""
    return made.struct("key", 8, [("prefixlen", number, 0), ("address", number, 32)])


def as_bytes(made: BtfBuilder, number: int) -> int:
    """struct { __u8 length[4]; __u32 address; }, which is no form of a prefix."""
    four = made.array(made.integer("__u8", 1), 4, number)
    return made.struct("key", 8, [("length", four, 0), ("address", number, 32)])


@pytest.mark.parametrize("key", [flat, embedded, as_bytes])
def test_no_entry_is_lost_by_a_rename(
    mounted: Mount, key: Callable[[BtfBuilder, int], int]
) -> None:
    """Whatever the type of the key: names that the kernel takes for one prefix are one entry."""
    sample = mounted.pin("sample", typed_map(key, 8, MapType.LPM_TRIE))
    sample.update(prefix("10.1.3.77/24"), u32(5))
    (old,) = listed(mounted)
    sample.update(prefix("10.1.3.0/24"), u32(6))
    (new,) = listed(mounted)
    assert old != new
    sample.update(prefix("10.1.3.77/24"), u32(7))
    mounted.sh(f"mv 'sample/entries/{old}' 'sample/entries/{new}'")
    assert list(dump(sample).values()) == [u32(7)]


@pytest.mark.parametrize("key", [flat, embedded])
def test_types_of_prefixes(mounted: Mount, key: Callable[[BtfBuilder, int], int]) -> None:
    sample = mounted.pin("sample", typed_map(key, 8, MapType.LPM_TRIE))
    sample.update(prefix("10.1.0.0/16"), u32(5))
    assert listed(mounted) == ["10.1.0.0_16"]


# Keys that are too long for a name.

LONG = [bytes([number]) * 512 for number in range(5)] + [bytes(range(256)) * 2]


def long_map(mount: Mount) -> Map:
    """A map with keys of 512 bytes."""
    sample = mount.pin("sample", make_map(key=512, value=4))
    for number, key in enumerate(LONG):
        sample.update(key, u32(number))
    return sample


def long_name(key: bytes) -> str:
    """The name of a key of 512 bytes."""
    return f"{key.hex()[:221]}%#{key_digest(key)}"


def test_long_keys(mounted: Mount) -> None:
    sample = long_map(mounted)
    assert listed(mounted) == sorted(map(long_name, LONG))
    assert {len(name) for name in listed(mounted)} == {255}
    for number, key in enumerate(LONG):
        assert mounted.sh(f"cat 'sample/entries/{long_name(key)}'").stdout == hexed(number)
    found = mounted.sh(f"grep -rl {u32(3).hex()} sample/entries").stdout
    assert found == f"sample/entries/{long_name(LONG[3])}\n"
    one, other = long_name(LONG[0]), long_name(LONG[1])
    assert mounted.sh(f"cd sample/entries; echo 77 > '{one}'; rm '{other}'").code == 0
    assert dump(sample)[LONG[0]] == u32(77)
    assert LONG[1] not in dump(sample)
    assert mounted.sh(f"cat 'sample/entries/{other}'").code == 1
    two = long_name(LONG[2])
    assert mounted.sh(f"cd sample/entries; mv '{one}' '{two}'; ls | wc -l").stdout == "4\n"
    assert dump(sample)[LONG[2]] == u32(77)
    stat = mounted.sh(f"stat -c %s 'sample/entries/{two}'; find sample/entries -type f | wc -l")
    assert stat.stdout == "11\n4\n"
    assert mounted.sh("cat sample/count").stdout == "4\n"


def test_a_digest_of_no_key(mounted: Mount) -> None:
    sample = long_map(mounted)
    before = dump(sample)
    name = long_name(b"x" * 512)
    assert mounted.sh(f"cat 'sample/entries/{name}'").stderr.endswith("No such file or directory\n")
    assert mounted.sh(f"rm 'sample/entries/{name}'").code == 1
    result = mounted.sh(f"echo 5 > 'sample/entries/{name}'")
    assert result.stderr.endswith("Invalid argument\n")
    assert "the map has no key with this digest" in mounted.error_log("sample")
    result = mounted.sh(f"mv 'sample/entries/{long_name(LONG[0])}' 'sample/entries/{name}'")
    assert result.stderr.endswith("Operation not permitted\n")
    assert dump(sample) == before


@pytest.mark.parametrize("key", [4, 512])
def test_what_looks_like_a_digest_holds_up_nobody(mounted: Mount, key: int) -> None:
    """Names that can be no key's are not looked for among all keys of a large map."""
    large = mounted.pin("large", make_map(key=key, value=4, max_entries=20000))
    for number in range(20000):
        large.update(number.to_bytes(key, "little"), bytes(4))
    entries = mounted.path / "large/entries"
    started = time.monotonic()
    for number in range(20):
        assert not (entries / f"x%#{'z' * 30}{number:02}").exists()
        if key == 4:
            assert not (entries / f"x%#{number:032x}").exists()
    assert time.monotonic() - started < 0.3


def test_a_long_key_has_one_name(mounted: Mount) -> None:
    sample = long_map(mounted)
    digest = key_digest(LONG[5])
    name = long_name(LONG[5])
    for other in (f"%#{digest}", name.replace(digest, digest.upper()), f"x{name[1:]}"):
        assert not (mounted.path / "sample/entries" / other).exists()
    assert mounted.sh(f"cat 'sample/entries/{name}'").stdout == hexed(5)
    os.unlink(mounted.path / "sample/entries" / name)
    assert LONG[5] not in dump(sample)


def test_a_key_that_comes_back_is_found(mounted: Mount) -> None:
    sample = long_map(mounted)
    file = mounted.path / "sample/entries" / long_name(LONG[1])
    assert file.read_text() == hexed(1)
    sample.delete(LONG[1])
    eventually("it is gone", lambda: not file.exists())
    sample.update(LONG[1], u32(9))
    assert file.read_text() == hexed(9)


def test_the_attribute_has_the_key(mounted: Mount) -> None:
    long_map(mounted)
    for key in LONG:
        path = mounted.path / "sample/entries" / long_name(key)
        assert os.getxattr(path, "user.bpf.key") == f'"{key.hex()}"'.encode()
        assert os.listxattr(path) == ["user.bpf.key"]
    check_others(path)
    for name in ("sample", "sample/entries", ".", "sample/info"):
        assert no_list(mounted.path / name)


def no_list(path: Path) -> bool:
    """Whether there is no list of a file's attributes, so that `ls -l` asks for no other's."""
    with pytest.raises(OSError, match="not supported") as caught:
        os.listxattr(path)
    return caught.value.errno == errno.EOPNOTSUPP


def check_others(path: Path) -> None:
    """There are no other attributes, and none can be made."""
    for name, number in [
        ("user.other", errno.ENODATA),
        ("user.bpf.keys", errno.ENODATA),
        ("security.selinux", errno.EOPNOTSUPP),
        ("trusted.overlay", errno.EOPNOTSUPP),
        ("system.posix_acl_access", errno.EOPNOTSUPP),
    ]:
        with pytest.raises(OSError, match=r"\[Errno") as caught:
            os.getxattr(path, name)
        assert caught.value.errno == number, name
    for name in ("user.bpf.key", "user.other"):
        with pytest.raises(OSError, match=r"\[Errno") as caught:
            os.setxattr(path, name, b"x")
        assert caught.value.errno in (errno.EOPNOTSUPP, errno.EPERM)
        with pytest.raises(OSError, match=r"\[Errno"):
            os.removexattr(path, name)


def test_the_attribute_of_other_keys(mounted: Mount) -> None:
    sample = mounted.pin("pairs", make_map(key="pair"))
    sample.update(struct.pack("=Ii", 1, -2), u64(5))
    file = mounted.path / "pairs/entries/first=1,second=-2"
    assert os.getxattr(file, "user.bpf.key") == b'{"first": 1, "second": -2}'
    assert no_list(file)
    assert mounted.sh("echo 'key.first: ipv4' > pairs/format").code == 0
    file = mounted.path / "pairs/entries/first=1.0.0.0,second=-2"
    assert json.loads(os.getxattr(file, "user.bpf.key"))["first"] == "1.0.0.0"


def test_digests_are_found_by_who_has_not_listed_them(mounter: Mounter) -> None:
    mount = mounter()
    sample = long_map(mount)
    file = mount.path / "sample/entries" / long_name(LONG[3])
    assert file.read_text() == hexed(3)
    del file
    mount.sh("ls -R; sync -f .")
    Path("/proc/sys/vm/drop_caches").write_text("2\n")
    again = mounter()
    for one in (mount, again):
        file = one.path / "sample/entries" / long_name(LONG[3])
        assert file.read_text() == hexed(3)
        assert os.getxattr(file, "user.bpf.key") == f'"{LONG[3].hex()}"'.encode()
    file.write_text("8\n")
    assert dump(sample)[LONG[3]] == u32(8)
    file.unlink()
    assert LONG[3] not in dump(sample)


def long_struct(made: BtfBuilder, number: int) -> int:
    """struct key { __u32 first, numbers[73]; __u32 last; }."""
    numbers = made.array(number, 73, number)
    members = [("first", number, 0), ("numbers", numbers, 32), ("last", number, 296 * 8)]
    return made.struct("key", 300, members)


def test_long_structs(mounted: Mount) -> None:
    sample = mounted.pin("sample", typed_map(long_struct, 300))
    keys = [struct.pack("=75I", first, *range(1000, 1074)) for first in range(3)]
    keys += [keys[0][:-1] + b"\1", bytes(300)]
    for number, key in enumerate(keys):
        sample.update(key, u32(number))
    names = listed(mounted)
    assert len(names) == len(keys)
    for number, key in enumerate(keys):
        (name,) = [name for name in names if name.endswith(f"%#{key_digest(key)}")] or [""]
        if key == bytes(300):
            name = name or f"first=0,numbers=[{','.join('0' * 73)}],last=0"
        assert len(name) <= 255
        assert name.startswith(f"first={number if number < 3 else 0},numbers=[")
        file = mounted.path / "sample/entries" / name
        assert file.read_text() == f"{number}\n"
        fields = struct.unpack("=75I", key)
        assert json.loads(os.getxattr(file, "user.bpf.key")) == {
            "first": fields[0], "numbers": [*fields[1:-1]], "last": fields[-1],
        }  # fmt: skip
    text = json.dumps({"first": 9, "numbers": [0] * 73, "last": 8}, separators=(",", ":"))
    assert len(text) < 255
    result = mounted.sh(f"echo 5 > 'sample/entries/{text}'")
    assert result.code == 0, result
    assert dump(sample)[struct.pack("=I292xI", 9, 8)] == u32(5)
    assert mounted.sh("rm -- sample/entries/*; cat sample/count").stdout == "0\n"


# Texts of any bytes.


def text_map(mount: Mount, size: int, keys: list[bytes]) -> Map:
    """A map with keys of characters."""

    def array(made: BtfBuilder, number: int) -> int:
        return made.array(made.integer("char", 1, signed=True), size, number)

    sample = mount.pin("sample", typed_map(array, size))
    for number, key in enumerate(keys):
        sample.update(key, u32(number))
    return sample


ALL_BYTES = [bytes([byte]).ljust(8, b"\0") for byte in range(256)]
AMID = [b"a" + bytes([byte]) + b"z" for byte in range(256)]
RANDOM = list({random.Random(number).randbytes(16) for number in range(150)})
LONG_TEXTS = list({random.Random(number).randbytes(200) for number in range(60)})
LONG_TEXTS += [("ü" * 100).encode(), ("a" + "ü" * 99).encode() + b"\0", b"%#" * 100]
TEXTS = pytest.mark.parametrize(
    "keys", [ALL_BYTES, AMID, RANDOM, LONG_TEXTS], ids=["each", "amid", "random", "long"]
)


@TEXTS
def test_any_text_is_listed_and_opened_by_its_name(mounted: Mount, keys: list[bytes]) -> None:
    sample = text_map(mounted, len(keys[0]), keys)
    entries = mounted.path / "sample/entries"
    names = os.listdir(os.fsencode(entries))
    assert len(set(names)) == len(names) == len(keys)
    assert all(len(name) <= 255 for name in names)
    found = {int((entries / os.fsdecode(name)).read_text()) for name in names}
    assert found == set(range(len(keys)))
    shown = mounted.sh("grep -rc . sample/entries | wc -l; ls sample/entries | wc -l")
    assert shown.stdout == f"{len(keys)}\n" * 2
    assert mounted.sh("find sample/entries -type f -print0 | xargs -0 rm --").code == 0
    assert dump(sample) == {}


@pytest.mark.parametrize(
    "keys", [AMID[::3], RANDOM[:50], LONG_TEXTS], ids=["amid", "random", "long"]
)
@pytest.mark.parametrize("tool", ["cp -a", "tar", "rsync -a"])
def test_directories_of_odd_names_are_copied(
    mounted: Mount, tmp_path: Path, keys: list[bytes], tool: str
) -> None:
    text_map(mounted, len(keys[0]), keys)
    there = tmp_path / "copy"
    there.mkdir()
    if tool == "tar":
        command = f"tar -C sample -cf - entries | tar -C {there} -xf -"
    else:
        command = f"{tool} sample/entries {there}"
    result = mounted.sh(f"set -o pipefail; {command}")
    assert (result.code, result.stderr) == (0, ""), result
    assert mounted.sh(f"diff -r sample/entries {there}/entries").stdout == ""
    assert len(os.listdir(there / "entries")) == len(keys)


def test_a_copy_of_long_keys_is_put_back(mounted: Mount, tmp_path: Path) -> None:
    """As long as the keys are there."""
    sample = long_map(mounted)
    before = dump(sample)
    result = mounted.sh(f"cp -a sample/entries {tmp_path}/saved; tar -cf {tmp_path}/tar sample")
    assert (result.code, result.stderr) == (0, "")
    for key in LONG:
        sample.update(key, u32(0))
    result = mounted.sh(f"for f in {tmp_path}/saved/*; do cat $f > sample/entries/${{f##*/}}; done")
    assert (result.code, result.stderr) == (0, "")
    assert dump(sample) == before
