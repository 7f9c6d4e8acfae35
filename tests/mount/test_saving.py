"""Editors and other tools save values as they are used to: a live key is never absent, a value
that is refused shows the tool's own error, and nothing stays that was not there."""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.desktop import program, screen
from support.maps import dump, make_map, u32, u64
from support.mounting import Mount
from support.shell import run
from support.terminal import in_terminal
from support.waiting import eventually

from fusefs.bpf.map import Map

OLD, NEW, BAD = "4141", "4242", "nonsense"


@dataclass(frozen=True)
class Sample:
    """A map with an entry that is edited, and another that a tool's scratch file is named like."""

    make: Callable[[], Map]
    key: bytes
    value: bytes
    beside: bytes


def _pair(first: int, second: int) -> bytes:
    return u32(first) + u32(second)


SAMPLES = {
    "u32": Sample(lambda: make_map(key="u32", value="u64"), u32(1), u64(int(OLD)), u32(4913)),
    "string": Sample(
        lambda: make_map(key="text", value="pair"),
        b"eth0".ljust(16, b"\0"),
        _pair(int(OLD), 7),
        b"sedAb12Cd~".ljust(16, b"\0"),
    ),
    "struct": Sample(
        lambda: make_map(key="pair", value="pair"), _pair(1, 2), _pair(int(OLD), 7), _pair(4913, 0)
    ),
}


class Edited:
    """An entry that a tool is to save, with a program that polls it as fast as it can."""

    def __init__(self, mount: Mount, sample: Sample) -> None:
        self._sample = sample
        self.map = mount.pin("sample", sample.make())
        self.map.update(sample.key, sample.value)
        self.map.update(sample.beside, sample.value)
        self.entries = mount.path / "sample/entries"
        self._names = sorted(os.listdir(self.entries))
        (self.name,) = (name for name in self._names if not _is_beside(name))
        self.before = (self.entries / self.name).read_text()
        self.after = self.before.replace(OLD, NEW)
        self.bad = self.before.replace(OLD, BAD)
        self._kept = dump(self.map)

    @contextlib.contextmanager
    def polled(self) -> Iterator[None]:
        """Within the block the key is looked up again and again; it must always be there, with the
        old or the new value."""
        done = threading.Event()
        seen: set[bytes | None] = set()

        def poll() -> None:
            while not done.is_set():
                try:
                    seen.add(self.map.lookup(self._sample.key))
                except FileNotFoundError:
                    seen.add(None)

        poller = threading.Thread(target=poll)
        poller.start()
        try:
            yield
        finally:
            done.set()
            poller.join()
        assert seen <= {self._sample.value, self._new}, seen

    @property
    def _new(self) -> bytes:
        return self._sample.value.replace(u32(int(OLD)), u32(int(NEW)))

    def check(self, text: str) -> None:
        """The entry is `text`, nothing else has changed, and there are no more names."""
        file = self.entries / self.name
        assert json.loads(file.read_text()) == json.loads(text)
        new = self._new if text == self.after else self._sample.value
        assert dump(self.map) == self._kept | {self._sample.key: new}
        assert sorted(os.listdir(self.entries)) == self._names


def _is_beside(name: str) -> bool:
    return "4913" in name or "sed" in name


@pytest.fixture(params=SAMPLES.values(), ids=list(SAMPLES))
def edited(request: pytest.FixtureRequest, mounted: Mount) -> Edited:
    """For each type of key, an entry to edit."""
    return Edited(mounted, request.param)


# F is the entry, D its directory, and TEXT the text to be written.
EDITING = {
    "sed -i": "sed -i s/OLD/NEW/ F",
    "perl -i": "perl -pi -e s/OLD/NEW/ F",
}
WRITING = {
    "echo": "cat TEXT > F",
    "tee": "tee F < TEXT",
    "dd": "dd if=TEXT of=F status=none",
    "dd in place": "dd if=TEXT of=F conv=notrunc status=none",
    "cp": "cp TEXT F",
    "cp -p": "cp -p TEXT F",
    "rsync": "rsync --ignore-times TEXT F",
    "rsync -a": "rsync -a --ignore-times TEXT F",
    "rsync --inplace": "rsync --ignore-times --inplace TEXT F",
    "sponge": "sponge F < TEXT",
    "Python": 'python3 -c \'with open("F", "w") as f: f.write(open("TEXT").read())\'',
}


def filled(command: str, edited: Edited, text: Path, new: str) -> str:
    """A command with what its words stand for."""
    words = {"OLD": OLD, "NEW": new, "TEXT": str(text), "F": edited.name}
    return re.sub(r"\b(OLD|NEW|TEXT|F)\b", lambda word: words[word[0]], command)


@pytest.mark.parametrize("tool", [*EDITING, *WRITING])
def test_a_tool_saves(edited: Edited, tool: str, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text(edited.after)
    command = filled((EDITING | WRITING)[tool], edited, text, NEW)
    with edited.polled():
        result = run(["bash", "-c", command], cwd=edited.entries)
    assert result.code == 0, result
    edited.check(edited.after)


@pytest.mark.parametrize("tool", [*EDITING, *WRITING])
def test_a_tool_tells_what_is_refused(
    mounted: Mount, edited: Edited, tool: str, tmp_path: Path
) -> None:
    text = tmp_path / "text"
    text.write_text(edited.bad)
    command = filled((EDITING | WRITING)[tool], edited, text, BAD)
    with edited.polled():
        result = run(["bash", "-c", command], cwd=edited.entries)
    assert result.code != 0, result
    assert "Invalid argument" in result.stderr
    edited.check(edited.before)
    assert f"write entries/{edited.name}: " in mounted.error_log("sample")


# What is waited for, and the keys that are pressed then.
Steps = tuple[tuple[str, str], ...]


@pytest.mark.parametrize("tool", ["sed -i~ s/OLD/NEW/ F", "perl -pi~ -e s/OLD/NEW/ F", "mv F F~"])
def test_a_key_does_not_become_a_backup(edited: Edited, tool: str, tmp_path: Path) -> None:
    with edited.polled():
        command = filled(tool, edited, tmp_path, NEW)
        result = run(["bash", "-c", command], cwd=edited.entries)
    assert result.code != 0
    assert "Operation not permitted" in result.stderr
    edited.check(edited.before)


@dataclass(frozen=True)
class Editor:
    """An editor in a terminal: its command, how it is made to put {} in place of the first line and
    to save that, and how it is ended when it has, and when it has told that it could not."""

    command: str
    edit: Steps
    saved: Steps
    refused: Steps


EDITORS = {
    "vim": Editor(
        "vim F",
        edit=((r"\dL, ", "cc{}\x1b:w\r"),),
        saved=(("written", ":q\r"),),
        refused=(("E514: Write error", "\r:q!\r"),),
    ),
    "ex": Editor(
        "ex F",
        edit=(("Entering Ex mode", "c\r{}\r.\rw\r"),),
        saved=(("written", "q\r"),),
        refused=(("E514: Write error", "q!\r"),),
    ),
    "nano": Editor(
        "nano F",
        edit=(("Exit", "\x0b{}\x0f\r"),),
        saved=(("Wrote 1 line", "\x18"),),
        refused=(("Error writing .*: Invalid argument", "\x18n"),),
    ),
    "emacs": Editor(
        "emacs -nw F",
        edit=((r"\(Fundamental\)", "\x0b{}\x18\x13"),),
        saved=(("Wrote /", "\x18\x03"),),
        # What is said to be unmodified is not saved on the way out.
        refused=(("Write error: Invalid argument", "\x1b~\x18\x03"),),
    ),
    "mcedit": Editor(
        "mcedit F",
        edit=(("Quit", "\x19{}\x1bOQ\r"), ("has hard-links. Detach", "n")),
        saved=(("", "\x1b[21~"),),
        refused=(("Save As", "\x1b\x1b\x1b[21~"), ("was modified", "n")),
    ),
    "mcedit, detaching": Editor(
        "mcedit F",
        edit=(("Quit", "\x19{}\x1bOQ\r"), ("has hard-links. Detach", "y")),
        saved=(("", "\x1b[21~"),),
        refused=(("Save As", "\x1b\x1b\x1b[21~"), ("was modified", "n")),
    ),
}


@contextlib.contextmanager
def editing(
    edited: Edited, editor: Editor, text: str, home: Path
) -> Iterator[Callable[[Steps], None]]:
    """An editor in which `text` was put into the entry and saved; what goes on with it."""
    env = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": str(home)}
    command = editor.command.replace("F", edited.name)
    with edited.polled(), in_terminal(command, edited.entries, env) as terminal:

        def go_on(steps: Steps) -> None:
            for shown, keys in steps:
                terminal.expect(shown)
                terminal.send(keys.replace("{}", text.rstrip()))

        go_on(editor.edit)
        yield go_on


@pytest.mark.parametrize("name", EDITORS)
def test_an_editor_saves(edited: Edited, name: str, tmp_path: Path) -> None:
    file = edited.entries / edited.name
    with editing(edited, EDITORS[name], edited.after, tmp_path) as go_on:
        eventually("it is saved", lambda: file.read_text() == edited.after)
        go_on(EDITORS[name].saved)
    edited.check(edited.after)


@pytest.mark.parametrize("name", EDITORS)
def test_an_editor_tells_what_is_refused(
    mounted: Mount, edited: Edited, name: str, tmp_path: Path
) -> None:
    with editing(edited, EDITORS[name], edited.bad, tmp_path) as go_on:
        go_on(EDITORS[name].refused)
    for left in edited.entries.glob("cooledit??????"):  # as mcedit does on any file system
        left.unlink()
    edited.check(edited.before)
    assert f"write entries/{edited.name}: " in mounted.error_log("sample")


def test_an_editor_of_a_desktop(edited: Edited, mounted: Mount, tmp_path: Path) -> None:
    """mousepad, which saves as all of GTK's do (g_file_replace)."""
    file = edited.entries / edited.name
    with screen(tmp_path) as desktop, program(desktop, "mousepad", "--disable-server", file):
        window = desktop.window("Mousepad")
        with edited.polled():
            desktop.keys(window, "ctrl+a")
            desktop.types(window, edited.after.rstrip())
            desktop.keys(window, "ctrl+s")
            eventually("it is saved", lambda: file.read_text() == edited.after, 20)
        edited.check(edited.after)
        desktop.keys(window, "ctrl+a")
        desktop.types(window, edited.bad.rstrip())
        desktop.keys(window, "ctrl+s")
        eventually("it is refused", lambda: mounted.error_log("sample"), 20)
        edited.check(edited.after)


MISTYPED = {
    "echo": "echo 1 > 10x",
    "cp": "cp TEXT 10x",
    "rsync": "rsync TEXT 10x",
    "mv": "mv TEXT 10x",
    "touch": "touch 10x",
}


@pytest.mark.parametrize("command", MISTYPED.values(), ids=list(MISTYPED))
def test_a_mistyped_key_is_refused(mounted: Mount, command: str, tmp_path: Path) -> None:
    edited = Edited(mounted, SAMPLES["u32"])
    text = tmp_path / "text"
    text.write_text("1\n")
    result = run(["bash", "-c", command.replace("TEXT", str(text))], cwd=edited.entries)
    assert result.code != 0
    assert "Invalid argument" in result.stderr
    edited.check(edited.before)
    assert "expected an integer (__u32), got '10x'" in mounted.error_log("sample")


def test_the_probe_of_vim_does_not_reach_the_map(mounted: Mount, tmp_path: Path) -> None:
    """Where it may rename, it looks first whether it can make a file, `4913`; here it does not."""
    made = mounted.pin("sample", make_map())
    made.update(u32(1), u64(int(OLD)))
    entries = mounted.path / "sample/entries"
    calls = tmp_path / "calls"
    edit = f"vim -es -c s/{OLD}/{NEW}/ -c wq {entries}/1"
    assert run(["strace", "-f", "-o", calls, "bash", "-c", edit]).code == 0
    assert "4913" not in calls.read_text()
    # What it would do.
    fd = os.open(entries / "4913", os.O_CREAT | os.O_WRONLY | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    os.fchown(fd, 0, 0)
    os.close(fd)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(entries / "4913")
    assert dump(made) == {u32(1): u64(int(NEW))}
