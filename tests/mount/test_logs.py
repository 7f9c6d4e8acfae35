"""Where messages go: each on a real descriptor or socket."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.mounting import COMMAND, Mount, temporary_directory
from support.namespaces import apart
from support.shell import ENVIRONMENT, Result

from fusefs.logs import for_journal

Mounter = Callable[..., Mount]


def journal_stream(fd: int) -> str:
    """What systemd would put into the environment if the journal were behind a descriptor."""
    status = os.fstat(fd)
    return f"{status.st_dev}:{status.st_ino}"


@contextlib.contextmanager
def stream() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Such as the journal gives to a service: our end, and the service's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        yield ours, theirs


def said_of_nowhere(bpffs: Path, error: socket.socket, journal: str) -> None:
    """Have the command fail, with a socket as standard error."""
    with error:
        code = subprocess.run(
            [*COMMAND, bpffs, "/none/such", "-f"],
            env={**ENVIRONMENT, "JOURNAL_STREAM": journal},
            stderr=error.fileno(),
            check=False,
            timeout=20,
        ).returncode
    assert code == 1


REASON = "bpf-fusefs: /none/such: No such file or directory\n"


def test_the_journal_is_told_what_is_wrong(bpffs: Path) -> None:
    with stream() as (ours, theirs):
        said_of_nowhere(bpffs, theirs, journal_stream(theirs.fileno()))
        assert ours.makefile().read() == f"<3>{REASON}"


def test_a_journal_behind_something_else_is_none_here(bpffs: Path) -> None:
    with stream() as (ours, theirs), stream() as (_, other):
        said_of_nowhere(bpffs, theirs, journal_stream(other.fileno()))
        assert ours.makefile().read() == REASON


# The journal is what this shell's standard error is: of a test, a file.
JOURNAL = 'JOURNAL_STREAM=$(stat -L -c %d:%i /dev/fd/2) exec "$@"'


def test_the_journal_is_told_how_it_is(mounter: Mounter) -> None:
    mount = mounter(command=["bash", "-c", JOURNAL, "-", *COMMAND], complains=True)
    mount.process.send_signal(signal.SIGTERM)
    assert mount.process.wait(10) == 0
    assert mount.log() == "<6>ended by SIGTERM\n"


def test_standard_error_is_told_how_it_is(mounter: Mounter) -> None:
    mount = mounter()
    mount.process.send_signal(signal.SIGTERM)
    assert mount.process.wait(10) == 0
    assert mount.log() == f"bpf-fusefs[{mount.process.pid}]: INFO: ended by SIGTERM\n"


@pytest.mark.parametrize(
    ("level", "number"), [(10, 7), (20, 6), (30, 4), (40, 3), (50, 2), (25, 6)]
)
def test_each_line_has_its_priority(level: int, number: int) -> None:
    # For those of a traceback are messages of their own in the journal.
    assert for_journal("one\n two", level) == f"<{number}>one\n<{number}> two"


# A /dev of its own, as far as it is needed, with $log.
DEV = """
mount -t tmpfs tmpfs $dev && touch $dev/null $dev/fuse
mount --bind /dev/null $dev/null && mount --bind /dev/fuse $dev/fuse && ln -s $log $dev/log
mount --move $dev /dev
"""
# It removes a dead mount, and tells of that while it still has the terminal. The signal reaches all
# in the shell's namespace but the shell.
TWICE = """
$command $bpffs $place; kill -KILL -1; ls $place 2>/dev/null || $command $bpffs $place && echo again
"""


@pytest.mark.parametrize("listens", [True, False])
def test_syslog_is_told_in_the_background(bpffs: Path, listens: bool) -> None:
    with (
        temporary_directory() as parent,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslog,
    ):
        names = {name: parent / name for name in ("dev", "place", "log")}
        names["dev"].mkdir()
        names["place"].mkdir()
        syslog.bind(str(names["log"]))
        if not listens:  # nobody is to be told of that
            syslog.close()
        result = apart(DEV + TWICE, bpffs=bpffs, command=COMMAND[0], **names)
        assert result == Result(0, "again\n", "")
        if listens:
            # 30 is LOG_DAEMON | LOG_INFO of syslog(3).
            told = syslog.recv(4096, socket.MSG_DONTWAIT).decode()
            wanted = rf"<30>bpf-fusefs\[\d+\]: removed a dead mount from {names['place']}"
            assert re.fullmatch(wanted, told)
