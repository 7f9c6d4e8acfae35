"""File managers: to look around and to preview changes nothing; they copy and delete what they
show."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pexpect
import pytest
from support.desktop import Screen, program, screen
from support.maps import dump, make_map, u32, u64
from support.mounting import Mount, mounted, mounted_bpffs
from support.samples import workshop
from support.shell import checked, run
from support.terminal import in_terminal
from support.tracing import Tracer
from support.waiting import eventually

from fusefs.bpf.map import Map, MapType
from fusefs.bpf.program import Program, enable_statistics
from fusefs.bpf.ring_buffer import RingBuffer

DEMO = Path(__file__).parents[2] / "scripts/demo"
# What runs, consumes or draws something when it is read.
DANGEROUS = {"output", "records_pipe", "graph.svg"}
PLACES = ("demo/count", "demo/list_maps", "ring", "queue")
# What is said of what others hold may be known a moment later.
LOOK = "find . -type f ! -name 'info*' ! -name memlock -print0 | sort -z | xargs -0 sha256sum"
DOWN, F5, F8, F10 = "\x1bOB", "\x1b[15~", "\x1b[19~", "\x1b[21~"


@contextlib.contextmanager
def terminal(*command: str | Path, home: Path) -> Iterator[pexpect.spawn[str]]:
    """A command in a terminal; it is for the block to have it end."""
    with in_terminal(shlex.join(map(str, command)), home, environment(home)) as child:
        yield child


def environment(home: Path) -> dict[str, str]:
    """That of a user whose home is empty so far."""
    return {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": str(home), "TERM": "xterm"}


# To look around.


@dataclass
class Furnished:
    """A mount with objects of which to read some files would run, consume or wait."""

    mount: Mount
    ring: Map
    queue: Map
    programs: list[Program]

    def state(self) -> object:
        """All that is shown, and what the kernel says of the objects."""
        look = self.mount.sh(LOOK)
        assert (look.code, look.stderr) == (0, "")
        runs = [each.information().run_cnt for each in self.programs]
        with RingBuffer(self.ring) as ring:
            unread = [bytes(record) for records in ring.unread() for record in records]
        assert unread
        return [look.stdout.splitlines(), runs, unread, self.queue.peek()]


@pytest.fixture(scope="module")
def furnished() -> Iterator[Furnished]:
    """Programs whose runs are counted, an iterator, a ring and a queue that are not empty."""
    with ExitStack() as stack:
        bpffs = stack.enter_context(mounted_bpffs())
        shop = stack.enter_context(workshop(bpffs))
        checked(sys.executable, DEMO, bpffs / "demo")
        mount = stack.enter_context(mounted(bpffs))
        ring = mount.pin("ring", shop.sample(MapType.RINGBUF))
        queue = mount.pin("queue", shop.sample(MapType.QUEUE))
        stack.callback(os.close, enable_statistics())
        ids = mount.sh("cat demo/count/info.json demo/list_maps/prog/info.json | jq .id").stdout
        programs = [stack.enter_context(Program.from_id(int(line))) for line in ids.split()]
        yield Furnished(mount, ring, queue, programs)


@contextlib.contextmanager
def changing_nothing(furnished: Furnished, log: Path) -> Iterator[Tracer]:
    """Nothing changes in the block, and nothing is opened that would."""
    before = furnished.state()
    tracer = Tracer(log)
    yield tracer
    opened = tracer.opened(furnished.mount.path)
    assert opened
    for path, flags in opened:
        assert Path(path).name not in DANGEROUS
        assert "O_WRONLY" not in flags and "O_RDWR" not in flags, path
    assert furnished.state() == before


@pytest.mark.parametrize("manager", ["thunar", "pcmanfm"])
def test_to_look_around_changes_nothing(furnished: Furnished, manager: str, tmp_path: Path) -> None:
    """They look into files to tell their types, and make thumbnails of some types."""
    shown = furnished.mount.path
    windows = [shown / place for place in PLACES]
    expected = {f"{place}/info.json" for place in PLACES}
    with (
        changing_nothing(furnished, tmp_path / "calls") as tracer,
        screen(tmp_path) as desktop,
        program(desktop, manager, *windows, tracer=tracer.command),
    ):
        eventually("all are looked at", lambda: expected <= set(dict(tracer.opened(shown))), 60)


@pytest.mark.parametrize("place", PLACES)
def test_previews_of_mc_change_nothing(furnished: Furnished, place: str, tmp_path: Path) -> None:
    """Its quick view, of one file after the other."""
    here = furnished.mount.path / place
    with (
        changing_nothing(furnished, tmp_path / "calls") as tracer,
        terminal(*tracer.command, "mc", "--nosubshell", here, here, home=tmp_path) as mc,
    ):
        mc.expect("Quit")
        mc.send("\x18q")
        for name in sorted(os.listdir(here)):
            mc.send(DOWN)
            mc.expect(re.escape(name))
        mc.send(F10)


def ended(ranger: pexpect.spawn[str]) -> bool:
    """Press its key for the end; whether it has ended in the next second."""
    ranger.send("q")
    return ranger.expect([pexpect.TIMEOUT, pexpect.EOF], timeout=1) == 1


def test_previews_of_ranger_change_nothing(furnished: Furnished, tmp_path: Path) -> None:
    """Its script asks file(1), and shows what is text. For root it has to be told to do so."""
    here = furnished.mount.path / "demo/count"
    settings = {"preview_files": "true", "use_preview_script": "true", "flushinput": "false"}
    previews = [f"--cmd=set {what} {value}" for what, value in settings.items()]
    assert run(["ranger", "--copy-config=scope"], env=environment(tmp_path)).code == 0
    with changing_nothing(furnished, tmp_path / "calls") as tracer:

        def previewed(file: Path) -> bool:
            return str(file.relative_to(furnished.mount.path)) in dict(
                tracer.opened(furnished.mount.path)
            )

        with terminal(*tracer.command, "ranger", *previews, here, home=tmp_path) as ranger:
            ranger.expect("xlated")
            # Directories are before files, and in those that are empty there is nothing to see.
            for file in sorted(here.iterdir(), key=lambda file: (file.is_file(), file.name)):
                if file.is_file() and file.stat().st_size:
                    eventually(f"{file.name} is looked into", partial(previewed, file), 60)
                ranger.send("j")
            # It does not end, and does not say so, while a preview is made.
            eventually("it ends", lambda: ended(ranger), 60)


# To copy, and to delete.


@pytest.fixture
def sample(mounted: Mount) -> Map:
    """A map, pinned as `sample`."""
    made = mounted.pin("sample", make_map())
    for number in range(12):
        made.update(u32(number), u64(100 + number))
    return made


def select(desktop: Screen, window: str, name: str) -> None:
    """Select a file in a window, by its name."""
    desktop.keys(window, "Escape")
    desktop.types(window, name)
    desktop.keys(window, "Escape")


# A window may not yet have listed its directory when it is there, and nothing tells: keys that come
# too early do nothing, or in thunar something else. So copying is tried again.


def paste(desktop: Screen, window: str, path: Path, to: Path) -> None:
    """Copy and paste, in one window."""
    select(desktop, window, path.name)
    desktop.keys(window, "ctrl+c", "ctrl+l", "ctrl+a")
    desktop.types(window, str(to))
    desktop.keys(window, "Return")
    desktop.window(to.name, 5)
    desktop.keys(window, "ctrl+v")
    eventually("it begins", (to / path.name).exists, 3)


def copy_in_thunar(manager: str, path: Path, to: Path, home: Path) -> None:
    """Each time in a new window."""

    def pasted() -> bool:
        with program(desktop, manager, path.parent), contextlib.suppress(AssertionError):
            paste(desktop, desktop.window(path.parent.name), path, to)
            eventually("it is copied", lambda: same(path, to / path.name), 20)
            return True
        return False

    with screen(home) as desktop:
        eventually("it is pasted", pasted, 60)


def copy_in_pcmanfm(manager: str, path: Path, to: Path, home: Path) -> None:
    """Each time in the same window."""
    with screen(home) as desktop, program(desktop, manager, path.parent):
        window = desktop.window(path.parent.name)

        def pasted() -> bool:
            with contextlib.suppress(AssertionError):
                paste(desktop, window, path, to)
                return True
            desktop.keys(window, "alt+Left")
            desktop.window(path.parent.name, 5)
            return False

        eventually("it is pasted", pasted, 60)
        eventually("it is copied", lambda: same(path, to / path.name), 20)


def copy_in_mc(_manager: str, path: Path, to: Path, home: Path) -> None:
    """F5, from one panel to the other."""
    with terminal("mc", "--nosubshell", path.parent, to, home=home) as mc:
        mc.expect("Quit")
        mc.send(f"\x13{path.name}{F5}")  # ^S looks for a name
        mc.expect("Preserve")
        mc.send("\r")
        eventually("it is copied", lambda: same(path, to / path.name), 20)
        mc.send(F10)


def same(path: Path, copy: Path) -> bool:
    """Whether a directory and its copy have the same files, with the same contents."""
    return contents(path) == contents(copy)


def contents(path: Path) -> dict[str, bytes]:
    """What all files below a directory contain, by their paths; but what is said of the processes
    that use a map, which changes."""
    files = [file for file in path.rglob("*") if file.is_file() and file.stem != "info"]
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


COPYING = {"thunar": copy_in_thunar, "pcmanfm": copy_in_pcmanfm, "mc": copy_in_mc}


@pytest.mark.parametrize("manager", COPYING)
def test_a_map_is_copied_out(mounted: Mount, sample: Map, manager: str, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    backup.mkdir()
    COPYING[manager](manager, mounted.path / "sample", backup, tmp_path)
    lines = map(json.loads, (backup / "sample/entries.jsonl").read_text().splitlines())
    assert {u32(each["key"]): u64(each["value"]) for each in lines} == dump(sample)
    assert (backup / "sample/count").read_text() == "12\n"
    assert (backup / "sample/entries/7").read_text() == "107\n"


def delete_on_desktop(manager: str, path: Path, home: Path) -> None:
    """Shift+Delete, and then yes."""
    with screen(home) as desktop, program(desktop, manager, path.parent):
        window = desktop.window(path.parent.name)

        def asked() -> str:
            """It may not yet have listed the directory, and selects nothing then."""
            select(desktop, window, path.name)
            desktop.keys(window, "shift+Delete")
            with contextlib.suppress(AssertionError):
                return desktop.window("Attention|Confirm", 3)
            return ""

        desktop.keys(eventually("it asks", asked, 40), "Return")
        eventually("it is deleted", lambda: not path.exists(), 20)


def delete_in_mc(_manager: str, path: Path, home: Path) -> None:
    """F8, and then yes."""
    with terminal("mc", "--nosubshell", path.parent, home, home=home) as mc:
        mc.expect("Quit")
        mc.send(f"\x13{path.name}{F8}")
        mc.expect("Delete file")
        mc.send("\r")
        eventually("it is deleted", lambda: not path.exists(), 20)
        mc.send(F10)


DELETING = {"thunar": delete_on_desktop, "pcmanfm": delete_on_desktop, "mc": delete_in_mc}


@pytest.mark.parametrize("manager", DELETING)
def test_an_entry_is_deleted(mounted: Mount, sample: Map, manager: str, tmp_path: Path) -> None:
    before = dump(sample)
    DELETING[manager](manager, mounted.path / "sample/entries/7", tmp_path)
    del before[u32(7)]
    assert dump(sample) == before
