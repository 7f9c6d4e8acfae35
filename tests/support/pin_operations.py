"""What can be done to pins in a mount, and how the same is done by bpf(2)."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path

from support import by_files, by_hand
from support.rights import Operation


def of_file(name: str, direct: Callable[..., object] = by_hand.to_read) -> Operation:
    return Operation(f"read {name}", direct, functools.partial(by_files.read, name=name))


def of_size(name: str, direct: Callable[..., object]) -> Operation:
    return Operation(f"size of {name}", direct, functools.partial(by_files.size, name=name))


def writing(
    name: str, text: str, direct: Callable[..., object], flags: int = os.O_TRUNC
) -> Operation:
    through = functools.partial(by_files.write, name=name, text=text, flags=flags)
    return Operation(f"write {name}", direct, through, changes=True)


def opening(name: str, direct: Callable[..., object]) -> Operation:
    through = functools.partial(by_files.open_to_write, name=name)
    return Operation(f"open {name} to write", direct, through)


OF_ALL = [
    of_file("info", by_hand.somehow),
    of_file("info.json", by_hand.somehow),
    of_size("info", by_hand.somehow),
    of_file("graph.dot", by_hand.by_id),
    Operation("list it", by_hand.kind, by_files.list_names),
]
LOG = [of_file("error_log"), writing("error_log", "\n", by_hand.to_write)]


def table(first: str, second: str, text: str, key: str) -> list[Operation]:
    """What is done to a map with entries: of two keys, the first is there."""
    here, new = f"entries/{first}", f"entries/{second}"
    line = f'{{"key": {key}, "value": {text}}}\n'
    return [
        Operation(
            "list entries", by_hand.next_key, functools.partial(by_files.list_names, name="entries")
        ),
        of_file("entries.jsonl", by_hand.lookup),
        of_file("count", by_hand.next_key),
        of_file(here, by_hand.lookup),
        Operation(
            "look for an entry", by_hand.has_key, functools.partial(by_files.look, name=here)
        ),
        of_size(here, by_hand.lookup),
        Operation(
            "attribute of an entry",
            by_hand.has_key,
            functools.partial(by_files.get_attribute, name=here),
        ),
        writing(here, f"{text}\n", by_hand.update),
        writing(new, f"{text}\n", by_hand.create, flags=os.O_CREAT | os.O_EXCL),
        writing("entries.jsonl", line, by_hand.update),
        Operation(
            "save an entry",
            by_hand.update,
            functools.partial(by_files.save, directory="entries", name=first, text=f"{text}\n"),
            True,
        ),
        Operation(
            "remove an entry", by_hand.delete, functools.partial(by_files.remove, name=here), True
        ),
        Operation(
            "rename an entry",
            by_hand.rename,
            functools.partial(by_files.rename, name=here, new_name=new),
            True,
        ),
    ]


OF_MAPS = [
    *LOG,
    of_file("types.h", by_hand.somehow),
    of_size("types.h", by_hand.somehow),
    of_file("frozen", by_hand.somehow),
    writing("frozen", "0\n", by_hand.to_write),
    of_file("format"),
    writing("format", "value: auto\n", by_hand.to_write),
    of_file("btf", by_hand.types),
    of_size("btf", by_hand.types),
]
QUEUE = [
    of_file("head", by_hand.peek),
    of_size("head", by_hand.peek),
    Operation("look for head", by_hand.peek, functools.partial(by_files.look, name="head")),
    Operation("pop", by_hand.pop, functools.partial(by_files.remove, name="head"), True),
    writing("push", "7\n", by_hand.push),
]
RING = [
    of_file("records", by_hand.unread),
    Operation(
        "open records_pipe",
        by_hand.consume,
        functools.partial(by_files.open_to_read, name="records_pipe"),
    ),
]
VARIABLES = [
    Operation("list vars", by_hand.load, functools.partial(by_files.list_names, name="vars")),
    of_file("vars/first", by_hand.load),
    of_size("vars/first", by_hand.load),
    writing("vars/first", "1\n", by_hand.store),
]
PUSHES = [writing("push", '"0102"\n', by_hand.push_record)]
DEVICES = [
    writing("entries/2", '{"ifindex": 1}\n', by_hand.set_device, flags=os.O_CREAT),
    Operation(
        "remove an entry",
        by_hand.delete,
        functools.partial(by_files.remove, name="entries/1"),
        True,
    ),
    of_file("entries/1", by_hand.lookup),
]
BLOOM = [
    Operation(
        "ask for a value", by_hand.contains, functools.partial(by_files.look, name="entries/5")
    ),
    of_file("entries/5", by_hand.contains),
    writing("push", "7\n", by_hand.push),
]


def slots(other: Path, shown: str, present: str) -> list[Operation]:
    """What is done to a map whose slot 1 is filled, and into which another pin fits."""
    return [
        Operation(
            "list entries", by_hand.next_key, functools.partial(by_files.list_names, name="entries")
        ),
        of_file("entries.jsonl", by_hand.lookup),
        Operation(
            "read a slot", by_hand.lookup, functools.partial(by_files.link_target, name="entries/1")
        ),
        Operation(
            "look for a slot", by_hand.has_key, functools.partial(by_files.look, name="entries/1")
        ),
        of_size("entries/1", by_hand.lookup),
        Operation(
            "set a slot",
            functools.partial(by_hand.set_slot, other=str(other)),
            functools.partial(by_files.symlink, name="entries/2", target=shown),
            True,
        ),
        Operation(
            "replace a slot",
            functools.partial(by_hand.set_slot, other=str(other)),
            functools.partial(by_files.replace_link, name="entries/1", target=shown),
            True,
        ),
        Operation(
            "set a slot by id",
            by_hand.by_id,
            functools.partial(by_files.symlink, name="entries/2", target=present),
            True,
        ),
        Operation(
            "empty a slot",
            by_hand.delete,
            functools.partial(by_files.remove, name="entries/1"),
            True,
        ),
        Operation(
            "move a slot",
            by_hand.by_id,
            functools.partial(by_files.rename, name="entries/1", new_name="entries/2"),
            True,
        ),
    ]


PROGRAM = [
    *LOG,
    of_file("types.h", by_hand.types),
    of_size("types.h", by_hand.types),
    of_file("stats", by_hand.somehow),
    of_size("stats", by_hand.somehow),
    opening("stats", by_hand.statistics),
    of_file("xlated", by_hand.code),
    of_file("xlated.bin", by_hand.code),
    of_size("xlated.bin", by_hand.code_length),
    of_file("jited", by_hand.code),
    of_file("jited.bin", by_hand.code),
    of_size("jited.bin", by_hand.code_length),
    Operation("list maps", by_hand.somehow, functools.partial(by_files.list_names, name="maps")),
    Operation("list links", by_hand.by_id, functools.partial(by_files.list_names, name="links")),
    writing("test_run", "\0" * 64, by_hand.run),
    of_file("test_run", by_hand.run),
]


def link(program: Path, shown: str) -> list[Operation]:
    return [
        of_file("error_log", by_hand.fully),
        writing("error_log", "\n", by_hand.fully),
        of_file("types.h", by_hand.fully),
        of_size("types.h", by_hand.fully),
        of_size("info", by_hand.fully),
        of_size("prog", by_hand.fully),
        Operation("read prog", by_hand.fully, functools.partial(by_files.link_target, name="prog")),
        Operation(
            "swap",
            functools.partial(by_hand.swap, program=str(program)),
            functools.partial(by_files.replace_link, name="prog", target=shown),
        ),
        opening("detach", by_hand.fully),
    ]


ITERATOR = [of_file("output", by_hand.read_pin)]
