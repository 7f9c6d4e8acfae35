"""Doing everything while something fails, and what has to be so then, whatever it is."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

from support.actions import ACTIONS, Client
from support.failing_calls import Plan
from support.mounting import Mount
from support.stage import Stage, State, between
from support.waiting import eventually

# What takes longer hangs, in seconds, be the machine as busy as it may.
LONGEST = 30.0
_AGAIN = 10.0  # by then all is well again


@dataclass(frozen=True)
class Learned:
    """What an action gives, and what is then, when nothing fails."""

    result: object
    state: State


class Trials:
    """Actions on a mount of a stage, tried under faults. `answers` counts what came of them."""

    def __init__(self, stage: Stage, mount: Mount) -> None:
        self.answers: Counter[str] = Counter()
        self.client = Client(stage, mount.path)
        self._stage = stage
        self._mount = mount
        self._learned: dict[str, Learned] = {}

    def learn(self, name: str) -> Learned:
        """What an action does, after it was done once before: what can be kept of it is kept."""
        if name not in self._learned:
            for _ in range(2):
                result = ACTIONS[name].do(self.client)
                self._learned[name] = Learned(result, self._stage.state())
                self._stage.reset()
        return self._learned[name]

    def attempt(
        self, name: str, fault: AbstractContextManager[object], *, exact: bool = True
    ) -> int:
        """Do an action while a fault lasts; its errno, 0 if it was done.

        What was there is as it was or as it was to become: all of it as it was after an error, and
        as it was to become without one. The log has no error, and what is done next succeeds.
        Unless it is `exact`, what is read may be something else, and what failed may have been
        done.
        """
        wanted = self.learn(name)
        before = self._errors()
        began = time.monotonic()
        with fault:
            number, result = self.answer(name)
        assert time.monotonic() - began < LONGEST, name
        self.answers[errno.errorcode.get(number, "done")] += 1
        state = self._stage.state()
        assert not between(self._stage.start, wanted.state, state), name
        if number == 0:
            assert state == wanted.state, name
            assert not exact or result == wanted.result, name
        elif exact and not ACTIONS[name].partly:
            assert state == self._stage.start, f"{name}: {errno.errorcode[number]}"
        assert self._mount.process.poll() is None, self._mount.log()
        assert self._errors() == before, self._mount.log()
        self._stage.reset()
        eventually(f"{name} succeeds again", lambda: self._succeeds(name, wanted), _AGAIN)
        self._stage.reset()
        return number

    def _errors(self) -> int:
        """How many errors the log has. That changes are not told to those who watch is none."""
        return self._mount.log().count(": ERROR: ") + self._mount.log().count("Traceback")

    def answer(self, name: str) -> tuple[int, object]:
        """Do an action: its errno, 0 if it was done, and what it gave."""
        with interrupted_after(LONGEST):
            try:
                return 0, ACTIONS[name].do(self.client)
            except OSError as error:
                assert error.errno, name
                return error.errno, None

    def _succeeds(self, name: str, wanted: Learned) -> bool:
        number, result = self.answer(name)
        if number == 0 and (result, self._stage.state()) == (wanted.result, wanted.state):
            return True
        self._stage.reset()
        return False


class Failing(Trials):
    """Calls of a mount that can be made to fail."""

    def __init__(self, stage: Stage, mount: Mount, plan: Plan) -> None:
        super().__init__(stage, mount)
        self._plan = plan
        self._calls: dict[str, int] = {}

    @contextlib.contextmanager
    def fault(self, which: int, error: int) -> Iterator[None]:
        """While this lasts, one call fails."""
        self._plan.set(which, error)
        try:
            yield
        finally:
            self._plan.set(0, 0)

    def calls(self, name: str) -> int:
        """How many calls an action makes, or one more."""
        if name not in self._calls:
            self.learn(name)
            with self.fault(0, 0):
                self.answer(name)
                self._calls[name] = self._plan.made + 1
            self._stage.reset()
        return self._calls[name]


@contextlib.contextmanager
def interrupted_after(seconds: float) -> Iterator[None]:
    """Fail when the block takes longer, even if it asks again and again. For the main thread."""

    def fail(_number: int, _frame: object) -> None:
        raise AssertionError(f"it takes longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def descriptors(mount: Mount) -> list[int]:
    """Those that a mount has open."""
    return sorted(map(int, os.listdir(f"/proc/{mount.process.pid}/fd")))


@contextlib.contextmanager
def no_growth(count: Callable[[], int], slack: int = 8) -> Iterator[None]:
    """What is counted does not grow by more than `slack`: names that were never seen before, a
    process that echoes. What is kept for a moment is gone at the end."""
    before = count()
    yield
    eventually(f"it is no more than {before} again", lambda: count() <= before + slack, _AGAIN)
