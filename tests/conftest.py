"""Fixtures: a bpffs of one's own, and a mount of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import hypothesis
import pytest
from _pytest.terminal import TerminalReporter
from support import soaking
from support.maps import make_map, u32, u64
from support.mounting import (
    COMMAND,
    Mount,
    SharedMount,
    mounted_bpffs,
    temporary_directory,
    unmount,
)
from support.mounting import mounted as mounted_at

from fusefs.bpf.map import Map

Mounter = Callable[..., Mount]


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--cases N`: how many values the laws of text are tried on."""
    help_text = "values that the laws of text are tried on (and five times as many texts)"
    parser.addoption("--cases", type=int, default=20_000, help=help_text)
    soaking.add_option(parser)


def pytest_configure(config: pytest.Config) -> None:
    """A marker of ours. And no property fails for its time, or for that of making its examples:
    tests run side by side, and how long one takes hangs on the others."""
    config.addinivalue_line("markers", soaking.MARKER)
    hypothesis.settings.register_profile(
        "beside", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
    )
    hypothesis.settings.load_profile("beside")


@pytest.fixture
def cases(request: pytest.FixtureRequest) -> int:
    """How many cases a sweep has to try."""
    number: int = request.config.getoption("--cases")
    return number


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without root there are only the unit tests."""
    if os.geteuid() == 0:
        return
    for item in items:
        if {"kernel", "mount", "reliability"} & set(item.path.parts):
            item.add_marker(pytest.mark.skip(reason="needs root"))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Divide the time of a soak."""
    soaking.share_out(session)


def pytest_terminal_summary(terminalreporter: TerminalReporter, config: pytest.Config) -> None:
    """The figures of a soak."""
    if config.getoption("--soak"):
        terminalreporter.section("figures")
        for line in soaking.table(terminalreporter.getreports("passed")):
            terminalreporter.line(line)


@pytest.fixture
def span(request: pytest.FixtureRequest) -> float:
    """For how many seconds a test that is marked `soak` is to try."""
    return soaking.seconds(request.node)


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> soaking.Figure:
    """Where a test tells what it counted."""
    return soaking.noting(request.node)


@pytest.fixture
def bpffs() -> Iterator[Path]:
    """A fresh bpffs."""
    with mounted_bpffs() as path:
        yield path


@pytest.fixture
def place() -> Iterator[Path]:
    """An empty directory, to mount on."""
    with temporary_directory() as parent:
        path = parent / "place"
        path.mkdir()
        try:
            yield path
        finally:
            unmount(path)


@pytest.fixture
def mounter(bpffs: Path) -> Iterator[Mounter]:
    """Mounts `bpffs`, with options; each mount must end well."""
    with ExitStack() as stack:

        def mount(
            *options: str,
            source: Path = bpffs,
            command: Sequence[str] = COMMAND,
            complains: bool = False,
        ) -> Mount:
            made = mounted_at(source, options, command, complains=complains)
            return stack.enter_context(made)

        yield mount


@pytest.fixture(scope="module")
def shared() -> Iterator[SharedMount]:
    """A mount for all tests of a module, since to start one takes half a second."""
    shared = SharedMount()
    try:
        yield shared
        shared.end()
    finally:
        shared.close()


@pytest.fixture
def mounted(shared: SharedMount) -> Iterator[Mount]:
    """A mount of an empty bpffs. Its log must have nothing to complain of after the test."""
    with shared.borrowed() as mount:
        yield mount


@pytest.fixture
def sample(mounted: Mount) -> Map:
    """A pinned map of which the entry 1 is 500."""
    made = mounted.pin("sample", make_map())
    made.update(u32(1), u64(500))
    return made
