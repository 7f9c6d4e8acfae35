"""Running commands, as a user would."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from support.waiting import eventually

ENVIRONMENT = {**os.environ, "LC_ALL": "C.UTF-8"}
# For who begins a mount namespace: the mounts of tests that run beside it would not end before it.
LET_OTHERS_GO = """
findmnt -rno TARGET -t fuse.bpf-fusefs | while read -r mounted; do umount -l "$mounted"; done
"""


@dataclass(frozen=True)
class Result:
    """How a command ended, and what it said."""

    code: int
    stdout: str
    stderr: str


def run(
    command: Sequence[str | Path],
    *,
    cwd: str | Path | None = None,
    given: bytes = b"",
    seconds: float = 60,
    env: Mapping[str, str] = ENVIRONMENT,
) -> Result:
    """Run a command to its end."""
    with subprocess.Popen(
        command,
        cwd=cwd,
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            out, err = process.communicate(given, timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    decoded = [text.decode("utf-8", "surrogateescape") for text in (out, err)]
    return Result(process.returncode, *decoded)


def bash(command: str, cwd: str | Path, *, given: bytes = b"", seconds: float = 60) -> Result:
    """Run a bash command line."""
    return run(["bash", "-c", command], cwd=cwd, given=given, seconds=seconds)


def end_group(leader: int) -> None:
    """Kill all of a process group that is left, and wait until none is: as long as one is, the
    mount that it works in is busy. Who has started the leader waits for that one before."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)
    eventually("all have ended", lambda: _has_ended(leader), 20)


def _has_ended(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def checked(*command: str | Path) -> str:
    """Run a command that must succeed; what it printed."""
    result = run(command)
    assert result.code == 0, f"{command}: {result}"
    return result.stdout
