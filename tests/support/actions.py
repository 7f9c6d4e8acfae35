"""Everything that a client can ask of a mount of a `Stage`: each kind of operation once, with
system calls alone, so that it has one error."""

from __future__ import annotations

import contextlib
import json
import os
import select
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from support.stage import LINES, WIDE, Stage

# A value that no cell of the stage has.
NEW = 777


class Client:
    """Who does it, in a mount that is at `path`."""

    def __init__(self, stage: Stage, path: Path) -> None:
        self.stage = stage
        self.path = path

    def read(self, name: str) -> bytes:
        """The whole of a file."""
        fd = os.open(self.path / name, os.O_RDONLY)
        try:
            parts = []
            while part := os.read(fd, 1 << 17):
                parts.append(part)
            return b"".join(parts)
        finally:
            os.close(fd)

    def write(self, name: str, text: bytes, flags: int = os.O_TRUNC) -> None:
        """Write a text to a file, as a shell does; an error at close counts."""
        fd = os.open(self.path / name, os.O_WRONLY | flags, 0o644)
        try:
            while text:
                text = text[os.write(fd, text) :]
        except BaseException:
            with contextlib.suppress(OSError):
                os.close(fd)
            raise
        os.close(fd)

    def replace(self, name: str, make: Callable[[Path], object]) -> None:
        """Make a scratch file or link beside something, and rename it over that."""
        scratch = (self.path / name).parent / ".scratch"
        try:
            make(scratch)
            os.rename(scratch, self.path / name)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(scratch)
            raise

    def save(self, name: str, text: bytes) -> None:
        """Save a file as `sed -i` does."""
        self.replace(name, lambda path: self.write(str(path), text, os.O_CREAT | os.O_EXCL))

    def link_over(self, name: str, target: str) -> None:
        """Replace a link as `ln -sfn` does."""
        self.replace(name, lambda path: os.symlink(target, path))

    def scan(self, name: str) -> list[tuple[str, int]]:
        """List a directory, as `ls -l` does."""
        with os.scandir(self.path / name) as found:
            return sorted((one.name, one.stat(follow_symlinks=False).st_mode) for one in found)


@dataclass(frozen=True)
class Action:
    """Something to ask for: it raises OSError, or gives what can be compared (None for what
    differs each time). Of one that can be `partly` done some of what it changes may have changed
    when it fails."""

    do: Callable[[Client], object]
    partly: bool = False


def _done(_result: object) -> None:
    """It was done; what it gave differs each time."""


def _by_id(client: Client) -> str:
    return f".by-id/maps/{client.stage.maps['sample'].info.id}"


def _lines(client: Client) -> None:
    text = "".join(f'{{"key": {key}, "value": {NEW}}}\n' for key in range(LINES))
    client.write("lines/entries.jsonl", text.encode())


def _run(client: Client) -> None:
    fd = os.open(client.path / "first/test_run", os.O_RDWR)
    try:
        os.write(fd, bytes(64))
        json.loads(os.read(fd, 1 << 16))
    finally:
        os.close(fd)


def _follow(client: Client) -> None:
    """Nothing comes."""
    fd = os.open(client.path / "ring/records_pipe", os.O_RDONLY)
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        poll.poll(1)
    finally:
        os.close(fd)


def _set_times(client: Client) -> None:
    os.utime(client.path / "directory", (1, 1))
    os.chmod(client.path / "directory", 0o700)


ACTIONS: dict[str, Action] = {
    "read": Action(lambda c: c.read("sample/entries/1")),
    "read wide": Action(lambda c: c.read("wide/entries/01000000")),
    "info": Action(lambda c: _done(c.read("sample/info"))),
    "info.json": Action(lambda c: _done(c.read("outer/info.json"))),
    "info of a program": Action(lambda c: _done(c.read("first/info"))),
    "info of a link": Action(lambda c: _done(c.read("link/info"))),
    "types.h": Action(lambda c: c.read("sample/types.h")),
    "format": Action(lambda c: c.read("sample/format")),
    "count": Action(lambda c: c.read("sample/count")),
    "frozen": Action(lambda c: c.read("sample/frozen")),
    "attribute": Action(lambda c: os.getxattr(c.path / "sample/entries/1", "user.bpf.key")),
    "stat": Action(lambda c: os.stat(c.path / "sample/entries/2").st_size),
    "statfs": Action(lambda c: os.statvfs(c.path).f_namemax),
    "readlink": Action(lambda c: os.readlink(c.path / "outer/entries/1")),
    "list": Action(lambda c: c.scan("")),
    "list entries": Action(lambda c: c.scan("sample/entries")),
    "list many": Action(lambda c: len(os.listdir(c.path / "large/entries"))),
    "list tasks": Action(lambda c: c.scan("tasks/entries")),
    "list by id": Action(lambda c: _done(os.listdir(c.path / ".by-id/maps"))),
    "dump": Action(lambda c: c.read("large/entries.jsonl")),
    "dump per CPU": Action(lambda c: c.read("percpu/entries.jsonl")),
    "xlated": Action(lambda c: _done(c.read("first/xlated"))),
    "jited": Action(lambda c: _done(c.read("first/jited"))),
    "stats": Action(lambda c: _done(c.read("first/stats"))),
    "output": Action(lambda c: c.read("iterator/output")),
    "graph.dot": Action(lambda c: _done(c.read("sample/graph.dot"))),
    "graph.svg": Action(lambda c: _done(c.read("sample/graph.svg"))),
    "follow": Action(_follow),
    "test_run": Action(_run),
    "head": Action(lambda c: c.read("queue/head")),
    "error_log": Action(lambda c: _done(c.read("sample/error_log"))),
    # What changes something.
    "write": Action(lambda c: c.write("sample/entries/1", b"%d\n" % NEW)),
    "write at close": Action(lambda c: c.write("sample/entries/1", b"%d" % NEW)),
    "write wide": Action(lambda c: c.write("wide/entries/01000000", b'"' + b"99" * WIDE + b'"\n')),
    "write to all CPUs": Action(lambda c: c.write("percpu/entries/1", b"7\n", os.O_CREAT)),
    "write a variable": Action(lambda c: c.write("section/vars/first", b"7\n")),
    "create": Action(lambda c: c.write("sample/entries/9", b"9\n", os.O_CREAT | os.O_EXCL)),
    "delete": Action(lambda c: os.unlink(c.path / "sample/entries/2")),
    "rename": Action(
        lambda c: os.rename(c.path / "sample/entries/3", c.path / "sample/entries/8"), partly=True
    ),
    "save": Action(lambda c: c.save("sample/entries/1", b"%d\n" % NEW)),
    "load lines": Action(_lines, partly=True),
    "push": Action(lambda c: c.write("queue/push", b"6\n")),
    "pop": Action(lambda c: os.unlink(c.path / "queue/head")),
    "fill a slot": Action(
        lambda c: os.symlink("../../other", c.path / "outer/entries/2"), partly=True
    ),
    "replace a slot": Action(lambda c: c.link_over("outer/entries/1", "../../other")),
    "clear a slot": Action(lambda c: os.unlink(c.path / "outer/entries/1")),
    "swap the program": Action(lambda c: c.link_over("link/prog", "../two")),
    "set a format": Action(lambda c: c.write("sample/format", b"value: auto\n")),
    "clear the error log": Action(lambda c: c.write("sample/error_log", b"\n")),
    "pin": Action(lambda c: c.write(f"{_by_id(c)}/pin", b"pinned\n")),
    "unpin": Action(lambda c: os.rmdir(c.path / "loose")),
    "move a pin": Action(lambda c: os.rename(c.path / "loose", c.path / "directory/moved")),
    "mkdir": Action(lambda c: os.mkdir(c.path / "new")),
    "move a directory": Action(lambda c: os.rename(c.path / "directory", c.path / "moved")),
    "rmdir": Action(lambda c: os.rmdir(c.path / "directory")),
    "symlink": Action(lambda c: os.symlink("sample", c.path / "linked")),
    "unlink": Action(lambda c: os.unlink(c.path / "symlink")),
    "set times": Action(_set_times, partly=True),
}
