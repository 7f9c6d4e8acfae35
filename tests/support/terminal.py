"""Programs that want a terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pexpect

# No editor takes so long for anything.
_PATIENCE = 20


@contextlib.contextmanager
def in_terminal(command: str, cwd: Path, env: Mapping[str, str]) -> Iterator[pexpect.spawn[str]]:
    """A shell command in a terminal of its own; it is killed if it does not end by itself."""
    child: pexpect.spawn[str] = pexpect.spawn(
        "/bin/bash",
        ["-c", f"exec {command}"],
        cwd=str(cwd),
        env={**env, "TERM": "xterm"},
        encoding="utf-8",
        codec_errors="replace",
        dimensions=(24, 100),
        timeout=_PATIENCE,
    )
    try:
        yield child
        child.expect(pexpect.EOF)
        child.wait()
    finally:
        child.close(force=True)
