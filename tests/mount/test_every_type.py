"""One real, filled map of every type: listed, read, written, emptied with the tools of every day.

What each type can do has tests of its own; this one holds that none is left out.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.maps import ARRAYS, HASHES
from support.mounting import Mount
from support.samples import Workshop, workshop

from fusefs.bpf.cpus import possible_cpus
from fusefs.bpf.map import MapType
from fusefs.tree.map_files import FILES
from fusefs.tree.map_types import MAP_TYPES

REFUSED = r".*(Operation not permitted|Permission denied)\n"
ABSENT = r".*No such file or directory\n"
INVALID = r".*Invalid argument\n"
COMMON = {"error_log", "frozen", "info", "info.json", "types.h"}

# Commands in the directory of a map, and a pattern of all that they print.
Case = tuple[str, str]


def values(kind: MapType) -> list[Case]:
    cpus = ", ".join(["{}"] * possible_cpus())
    shown = (f"[{cpus}]" if "PERCPU" in kind.name else "{}").format
    ends = REFUSED if kind in ARRAYS else ""
    return [
        ("ls entries | sort", "0\n1\n2\n"),
        ("cat entries/1", re.escape(shown(*[101] * possible_cpus())) + "\n"),
        ("echo 7 > entries/1; cat entries/1", re.escape(shown(*[7] * possible_cpus())) + "\n"),
        ("wc -l < entries.jsonl; cat count", "3\n3\n"),
        ("rm entries/1", ends),
    ]


SLOTS = [
    ("ls entries; cat count", "1\n1\n"),
    ("readlink entries/1", r"\.\./\.\./\.by-id/(maps|programs)/[0-9]+\n"),
    ("grep -c ^id: entries/1/info", "1\n"),
    ("ln -sfn $(readlink entries/1) entries/2; ls entries", "1\n2\n"),
    ("rm entries/1; ls entries", "2\n"),
]
SOCKETS = [
    ("ls entries; cat count", "1\n1\n"),
    ("cat entries/1", r'\{"cookie": [0-9]+, .*"local": "127\.0\.0\.1:[0-9]+".*\}\n'),
    ("echo 1 > entries/1", REFUSED),
    ("rm entries/1; ls entries", ""),
]
DEVICES = [
    ("ls entries; cat count", "1\n1\n"),
    ("cat entries/1", r'\{"ifindex": 1, "interface": "lo", "prog_id": 0\}\n'),
    ("echo lo > entries/3; ls entries", "1\n3\n"),
    ("rm entries/1; ls entries", "3\n"),
]
QUEUE = [
    ("cat head", '"0[56]000000"\n'),
    ("echo 7 > push; rm head; cat head", '"0[57]?6?000000"\n'),
    ("rm head; rm head; ls | grep -c head", "0\n"),
]
OF_CGROUPS = [
    ("ls entries | wc -l; cat count", "1\n1\n"),
    ("f=$(echo entries/*); echo 9 > $f; cat $f", r"(9|\[9(, 9)*\])\n"),
    ("rm entries/*", REFUSED),
    ("touch entries/x", REFUSED),
]
NOTHING = [("grep ^entries: info", 'entries: "not shown: the kernel does not tell .*\n')]

CASES: dict[MapType, list[Case]] = {
    **{kind: values(kind) for kind in HASHES + ARRAYS},
    MapType.LPM_TRIE: [
        ("ls entries; cat count", "10.0.0.0_8\n10.1.0.0_16\n2\n"),
        ("cat entries/10.1.0.0_16", '"6500000000000000"\n'),
        ("echo 7 > entries/10.1.2.0_24; ls entries | wc -l", "3\n"),
        ("rm entries/10.1.0.0_16; cat entries/10.1.0.0_16", ABSENT),
    ],
    MapType.ARRAY_OF_MAPS: SLOTS,
    MapType.HASH_OF_MAPS: [("echo key: uint > format", ""), *SLOTS],
    MapType.PROG_ARRAY: SLOTS,
    MapType.DEVMAP: DEVICES,
    MapType.DEVMAP_HASH: DEVICES,
    MapType.CPUMAP: [
        ("ls entries; cat count", "1\n1\n"),
        ("cat entries/1", r'\{"qsize": 64, "prog_id": 0\}\n'),
        ("echo 32 > entries/1; grep -c 32 entries/1", "1\n"),
        ("rm entries/1; ls entries", ""),
    ],
    MapType.SOCKMAP: SOCKETS,
    MapType.SOCKHASH: [("echo key: uint > format", ""), *SOCKETS],
    MapType.REUSEPORT_SOCKARRAY: SOCKETS,
    MapType.STACK_TRACE: [
        ("ls entries | wc -l; cat count", "1\n1\n"),
        ("cat entries/*", r"([A-Za-z_0-9.]+\+0x[0-9a-f]+( \[\w+\])?\n|0x[0-9a-f]+\n)+"),
        ("echo 1 > $(echo entries/*)", REFUSED),
        ("rm entries/*; ls entries", ""),
    ],
    MapType.QUEUE: QUEUE,
    MapType.STACK: QUEUE,
    MapType.BLOOM_FILTER: [
        ("ls entries", ""),
        ("cat entries/05000000", '"maybe"\n'),
        ("cat entries/07000000", ABSENT),
        ("echo 7 > push; cat entries/07000000", '"maybe"\n'),
        ("rm entries/07000000", REFUSED),
    ],
    MapType.CGROUP_ARRAY: [
        ("ls entries", ""),
        ("ln -s {cgroup} entries/2; ls entries; readlink entries/2", "2\n{cgroup}\n"),
        ("rm entries/2; ls entries", ""),
    ],
    MapType.CGROUP_STORAGE: OF_CGROUPS,
    MapType.PERCPU_CGROUP_STORAGE: OF_CGROUPS,
    MapType.TASK_STORAGE: [
        ("ls entries; cat count", "{pid}\n1\n"),
        ("cat entries/{pid}", "7\n"),
        ("echo 8 > entries/$$; cat entries/$$", "8\n"),
        ("rm entries/{pid}; cat entries/{pid}", ABSENT),
    ],
    MapType.INODE_STORAGE: [
        ("ls entries", ""),
        ("exec 5< /etc/passwd; echo 8 > entries/$$.5; cat entries/$$.5", "8\n"),
        ("exec 5< /etc/passwd; rm entries/$$.5; cat entries/$$.5", ABSENT),
    ],
    MapType.SK_STORAGE: [
        ("ls entries", ""),
        ("exec 5<> /dev/udp/127.0.0.1/9; echo 8 > entries/$$.5; cat entries/$$.5", "8\n"),
    ],
    MapType.CGRP_STORAGE: [
        ("ls entries; cat count", r"fusefs-sample-{pid}-[0-9]+\n1\n"),
        ("cat entries/*", "7\n"),
        ("echo 8 > entries/%2F; cat entries/%2F; rm entries/%2F", "8\n"),
        ("rm entries/*; ls entries", ""),
    ],
    MapType.RINGBUF: [
        ("cat records records", '"04030201"\n' * 2),
        ("head -n 1 records_pipe; cat records", '"04030201"\n'),
        ("echo 1 > records", REFUSED),
        ("rm records", REFUSED),
    ],
    MapType.USER_RINGBUF: [
        ("echo 01020304 > push", ""),
        ("cat push", ""),
        ("rm push", REFUSED),
    ],
    MapType.STRUCT_OPS: [
        ("ls entries; cat count", "0\n1\n"),
        ('grep -c \'"name": "fusefs_\' entries/0', "1\n"),
        ("echo 1 > entries/0", REFUSED),
        ("rm entries/0", REFUSED),
    ],
    MapType.XSKMAP: NOTHING,
    MapType.PERF_EVENT_ARRAY: NOTHING,
    MapType.ARENA: [("grep ^entries: info", 'entries: "not shown: to read a page .*\n')],
}


@pytest.fixture
def shop(mounted: Mount) -> Iterator[Workshop]:
    """Where samples are made."""
    with workshop(mounted.source) as made:
        yield made


UNLISTED = {"records_pipe"}  # to read it is to consume
each_type = pytest.mark.parametrize("kind", MapType, ids=lambda kind: kind.name.lower())


@each_type
def test_the_files_that_a_type_has(mounted: Mount, shop: Workshop, kind: MapType) -> None:
    sample = mounted.pin("sample", shop.sample(kind))
    wanted = COMMON | set(FILES[MAP_TYPES[kind].shape]) | ({"btf"} if sample.info.btf_id else set())
    assert set(os.listdir(mounted.path / "sample")) == wanted - UNLISTED
    assert all((mounted.path / "sample" / name).exists() for name in wanted)
    info = json.loads((mounted.path / "sample/info.json").read_text())
    assert info["type"] == kind.name.lower()
    if "entries.jsonl" not in wanted and "head" not in wanted and "push" not in wanted:
        assert "entries" in info


@each_type
def test_the_tools_of_every_day(mounted: Mount, shop: Workshop, kind: MapType) -> None:
    mounted.pin("sample", shop.sample(kind))
    with ExitStack() as stack:
        words = {"pid": str(os.getpid())}
        if kind == MapType.CGROUP_ARRAY:
            words["cgroup"] = str(stack.enter_context(shop.another_cgroup()))
        mounted.sh("printf 'key: auto\\nvalue: auto\\n' > sample/format")
        for command, pattern in CASES[kind]:
            result = mounted.sh(f"cd sample; {with_words(command, words)}")
            said = result.stdout + result.stderr
            matches = re.fullmatch(with_words(pattern, words), said, re.DOTALL)
            assert matches, (command, said, mounted.error_log("sample"))


def with_words(text: str, words: dict[str, str]) -> str:
    """`text` with `{word}` replaced."""
    for word, meaning in words.items():
        text = text.replace(f"{{{word}}}", meaning)
    return text


def test_to_look_at_all_of_them_changes_nothing(
    mounted: Mount, shop: Workshop, tmp_path: Path
) -> None:
    """Everything that is shown is read, twice, and is the same."""
    for kind in MapType:
        mounted.pin(kind.name.lower(), shop.sample(kind))
    look = (
        "find . -type f ! -name memlock -print0 | sort -z | "
        "xargs -0 sha256sum; find . -type l -printf '%p %l\\n' | sort"
    )
    first, second = mounted.sh(look), mounted.sh(look)
    assert (first.code, first.stderr) == (0, "")
    assert first.stdout.count("\n") > 5 * len(MapType)
    assert first.stdout == second.stdout
    for walk in ("grep -rc . .", "tar c .", "rsync -a . {}/rsync", "cp -a . {}/cp"):
        result = mounted.sh(walk.format(tmp_path) + " > /dev/null")
        assert result.code == 0, result.stderr
    assert mounted.sh(look).stdout == first.stdout
    for kind in MapType:
        assert mounted.error_log(kind.name.lower()) == "", kind
