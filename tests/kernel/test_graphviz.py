"""Drawing graphs with Graphviz: a child process that has few rights, and leaves nothing behind."""

from __future__ import annotations

import errno
import os
import select
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from support.graph_samples import large_host
from support.waiting import eventually

from fusefs.bpf import graphviz
from fusefs.bpf.graphviz import MOST, Drawing, available
from fusefs.text.graph import dot

drawn = pytest.mark.skipif(shutil.which("dot") is None, reason="needs Graphviz")

# A graph that takes Graphviz minutes.
HARD = ["digraph {", *(f"x{n * 7919 % 3000} -> x{n * 104729 % 2999};\n" for n in range(9000)), "}"]


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    """No child and no descriptor may be left after a test."""
    before, children = descriptors(), children_of(os.getpid())
    yield
    assert descriptors() <= before  # what an earlier test forgot may be closed by now
    assert children_of(os.getpid()) == children


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def children_of(pid: int) -> set[int]:
    """Its children, zombies too."""
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def pieces(drawing: Drawing, size: int = 1 << 16) -> Iterator[bytes]:
    """What it gives, waiting as one should."""
    while (piece := drawing.read(size)) != b"":
        if piece:
            yield piece
        elif drawing.awaited is not None:
            assert select.select([drawing.awaited], [], [], 10)[0], "nothing can be read"


def started(drawing: Drawing) -> int:
    """Have the child started and become dot; its pid."""
    before = children_of(os.getpid())
    while drawing.awaited is None:
        assert drawing.read() is None
    (pid,) = children_of(os.getpid()) - before
    eventually("it is dot", lambda: Path(f"/proc/{pid}/comm").read_text() == "dot\n")
    return pid


def is_ours(descriptor: Path) -> bool:
    """Whether a descriptor of the child, other than the first three, can only be from us: all that
    it opens itself are fonts, libraries and the like."""
    try:
        target = str(descriptor.readlink())
    except FileNotFoundError:
        return False  # it has closed it meanwhile
    return int(descriptor.name) > 2 and not target.startswith(("/usr/", "/etc/", "/var/", "/proc/"))


@drawn
def test_a_graph_is_drawn() -> None:
    assert available()
    with Drawing(dot(large_host())) as drawing:
        svg = b"".join(pieces(drawing))
        assert drawing.read() == b""  # and again at the end
    assert ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
    assert b"large host" in svg


@drawn
def test_pieces_are_as_small_as_asked_for() -> None:
    with Drawing(["digraph { a -> b }"]) as drawing:
        given = list(pieces(drawing, 100))
    assert max(map(len, given)) <= 100
    ElementTree.fromstring(b"".join(given))


@drawn
def test_text_larger_than_any_pipe() -> None:
    comment = f"// {'x' * 1000}\n"
    with Drawing(["digraph {\n", *[comment] * 5000, "a }"]) as drawing:
        assert b"<title>a</title>" in b"".join(pieces(drawing))


@drawn
def test_text_that_takes_long_to_make_holds_up_nobody() -> None:
    made = 0

    def slow() -> Iterator[str]:
        nonlocal made
        yield "digraph {"
        for _ in range(100):
            made += 1
            until = time.monotonic() + 0.002
            while time.monotonic() < until:
                pass
            yield "a;"
        yield "}"

    with Drawing(slow()) as drawing:
        assert drawing.read() is None
        assert 0 < made < 50
        assert drawing.awaited is None
        assert b"<title>a</title>" in b"".join(pieces(drawing))


@drawn
def test_what_the_text_raises_is_raised() -> None:
    def broken() -> Iterator[str]:
        yield "digraph {"
        raise PermissionError(errno.EPERM, "no")

    with Drawing(broken()) as drawing, pytest.raises(PermissionError):
        drawing.read()


@drawn
def test_the_reason_why_it_cannot_be_drawn() -> None:
    with Drawing(["digraph { a -> "]) as drawing:
        with pytest.raises(OSError, match="syntax error in line 1") as caught:
            list(pieces(drawing))
        assert caught.value.errno == errno.EIO


@drawn
def test_files_that_a_graph_names_are_not_opened(tmp_path: Path) -> None:
    image = tmp_path / "image.svg"
    image.write_text('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')
    tmp_path.chmod(0o755)
    with Drawing([f'digraph {{ a [image="{image}"] }}']) as drawing:
        assert b"image.svg" not in b"".join(pieces(drawing))


@drawn
def test_the_child_has_few_rights() -> None:
    with Drawing(HARD) as drawing:
        pid = started(drawing)
        fields = dict(
            line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        )
        assert fields["Uid"].split() == fields["Gid"].split() == [str(graphviz._ALONE)] * 4
        assert fields["Groups"].split() == []
        assert fields["NoNewPrivs"].strip() == "1"
        assert all(int(fields[f"Cap{which}"], 16) == 0 for which in ("Inh", "Prm", "Eff", "Amb"))
        limits = Path(f"/proc/{pid}/limits").read_text()
        soft = {line[:26].strip(): line[26:].split()[0] for line in limits.splitlines()}
        assert soft["Max cpu time"] == str(graphviz.CPU_SECONDS)
        assert soft["Max address space"] == str(graphviz.MEMORY)
        assert soft["Max core file size"] == "0"
        assert os.getpriority(os.PRIO_PROCESS, pid) == 10
        assert not any(map(is_ours, Path(f"/proc/{pid}/fd").iterdir()))
        assert b"HOME" not in Path(f"/proc/{pid}/environ").read_bytes()
        assert Path(f"/proc/{pid}/cwd").readlink() == Path("/")


@drawn
def test_a_reader_that_goes_away_before_the_first_byte() -> None:
    with Drawing(HARD) as drawing:
        pid = started(drawing)
        assert drawing.read() is None
        began = time.monotonic()
    assert time.monotonic() - began < 2
    assert not Path(f"/proc/{pid}").exists()


@drawn
def test_a_reader_that_stops_holds_up_nobody() -> None:
    with Drawing(dot(large_host())) as drawing:
        pid = started(drawing)
        eventually("it has ended", lambda: Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z")
        assert Drawing.full() is None
        assert len(b"".join(pieces(drawing))) > 1 << 16


@drawn
def test_a_reader_that_goes_away_while_the_text_is_made() -> None:
    with Drawing(HARD):
        pass
    drawing = Drawing(HARD)
    drawing.close()
    drawing.close()
    with pytest.raises(OSError) as caught:
        drawing.read()
    assert caught.value.errno == errno.EBADF


@drawn
def test_a_child_that_is_killed() -> None:
    with Drawing(HARD) as drawing:
        os.kill(started(drawing), 9)
        with pytest.raises(OSError, match="Killed"):
            list(pieces(drawing))


@drawn
def test_it_may_take_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphviz, "SECONDS", 0.1)
    with Drawing(HARD) as drawing:
        started(drawing)

        def refused() -> OSError | None:
            try:
                assert drawing.read() is None
            except OSError as error:
                return error
            return None

        error = eventually("it is given up", refused)
        assert error is not None
        assert error.errno == errno.ETIMEDOUT


@drawn
def test_only_so_many_are_made_at_a_time() -> None:
    many = [Drawing(HARD) for _ in range(MOST)]
    try:
        for drawing in many:
            assert Drawing.full() is None
            started(drawing)
        ended = Drawing.full()
        assert ended is not None
        with Drawing(HARD) as another, pytest.raises(OSError) as caught:
            started(another)
        assert caught.value.errno == errno.EBUSY
        assert not select.select([ended], [], [], 0)[0]
        many[0].close()
        assert select.select([ended], [], [], 5)[0]
        os.close(ended)
        assert Drawing.full() is None
    finally:
        for drawing in many:
            drawing.close()


def test_graphviz_is_found_as_soon_as_it_is_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("setpriv", "nice", "prlimit"):
        (tmp_path / name).symlink_to(shutil.which(name) or name)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not available()
    with pytest.raises(OSError, match="dot is not installed") as caught:
        Drawing(["digraph {}"])
    assert caught.value.errno == errno.EOPNOTSUPP
    command = tmp_path / "dot"
    command.write_text("#!/bin/sh\necho drawn\n")
    command.chmod(0o755)
    for directory in [tmp_path, *tmp_path.parents][:4]:
        directory.chmod(directory.stat().st_mode | 0o055)
    assert available()
    with Drawing(["digraph {}"]) as drawing:
        assert b"".join(pieces(drawing)) == b"drawn\n"
