"""A screen, and a desktop's programs on it."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from support.shell import Result, run
from support.waiting import eventually

_SIZE = "1000x700x24"


class Screen:
    """A screen that nobody sees, with windows that are looked at and typed into."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.env = env

    def run(self, *command: str, seconds: float = 20) -> Result:
        """Run a command with this screen."""
        return run(command, env=self.env, seconds=seconds)

    def window(self, title: str, seconds: float = 20) -> str:
        """The id of the visible window whose title matches a regular expression, once there is
        one."""

        def found() -> str:
            result = self.run("xdotool", "search", "--onlyvisible", "--name", title)
            return result.stdout.split("\n")[0]

        return eventually(f"a window {title}", found, seconds)

    def keys(self, window: str, *keys: str) -> None:
        """Press keys, one after the other, by the names that xdotool knows."""
        assert self.run("xdotool", "windowfocus", "--sync", window).code == 0
        assert self.run("xdotool", "key", "--window", window, *keys).code == 0

    def types(self, window: str, text: str) -> None:
        """Type a text."""
        assert self.run("xdotool", "type", "--window", window, text).code == 0


@contextlib.contextmanager
def screen(home: Path) -> Iterator[Screen]:
    """A screen, and a session bus, for a user whose home is empty so far."""
    number, display = os.pipe()
    server = subprocess.Popen(
        # Without -noreset it closes for a moment when the last client has gone.
        ["Xvfb", "-displayfd", str(display), "-screen", "0", _SIZE, "-nolisten", "tcp", "-noreset"],
        pass_fds=[display],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(display)
    try:
        with os.fdopen(number) as told:
            shown = told.readline().strip()
        env = {
            "PATH": os.environ["PATH"],
            "LC_ALL": "C.UTF-8",
            "HOME": str(home),
            "XDG_RUNTIME_DIR": str(home),
            "DISPLAY": f":{shown}",
            "NO_AT_BRIDGE": "1",
            "GSETTINGS_BACKEND": "memory",
            "GTK_USE_PORTAL": "0",
        }
        yield Screen(env)
    finally:
        server.terminate()
        server.wait(10)


@contextlib.contextmanager
def program(
    screen: Screen, *command: str | Path, tracer: Sequence[str | Path] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """A program with a window, and a session bus of its own, as long as this lasts; `tracer` is a
    command that runs both, and so whatever the bus starts."""
    with subprocess.Popen(
        [*tracer, "dbus-run-session", "--", *command],
        env=dict(screen.env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
