"""A shell that stays where it is, while what it stands in is renamed or replaced."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

from support.shell import ENVIRONMENT

# No command takes so long.
_LONGEST = 20


class Shell:
    """A bash that takes one command after the other."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self, command: str) -> str:
        """Run a command, which must succeed; what it printed."""
        said, code = self.run(command)
        assert code == 0, f"{command}: {said}"
        return said

    def run(self, command: str) -> tuple[str, int]:
        """Run a command; what it printed, errors included, and its exit code."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin and stdout
        stdin.write(f"{{ {command}\n}} 2>&1; printf '\\nEND %d\\n' $?\n")
        stdin.flush()
        lines: list[str] = []
        while not (line := stdout.readline()).startswith("END "):
            assert line, f"the shell has ended: {lines}"
            lines.append(line)
        # The newline before END is not of the command.
        return "".join(lines)[:-1], int(line.split()[1])


@contextlib.contextmanager
def standing(path: Path) -> Iterator[Shell]:
    """A shell whose working directory is `path`."""
    with subprocess.Popen(
        ["bash"],
        cwd=path,
        env=ENVIRONMENT,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        watchdog = threading.Timer(_LONGEST, process.kill)
        watchdog.start()
        try:
            yield Shell(process)
        finally:
            watchdog.cancel()
            process.kill()
