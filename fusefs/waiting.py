"""Waiting until there is more to read: for a read that nothing can be given yet, and for poll(2).

Both wait on a descriptor. Nothing runs meanwhile, but for a look at who reads, now and then; and
nothing at all when nobody waits.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from typing import Protocol

import trio

from fusefs.bpf.clients import Wait, wait_of
from fusefs.tree.kept import Kept
from fusefs.tree.node import Handle, Node, refusal

log = logging.getLogger(__name__)

# A client is looked at when it has waited for so many seconds, and again: as long as it gets no
# answer, no signal reaches it (request_wait_answer in fs/fuse/dev.c).
PATIENCE = 0.2
# How long to wait for what is being written at this moment, when the descriptor can be read already
# and there is nothing to be had.
_MOMENT = 0.005


class Notified(Protocol):
    """Who polls, as `pyfuse3.PollHandle` has it."""

    def notify(self) -> None:
        """Have them poll again. Raises OSError."""


async def begun(handle: Handle, check: Callable[[Handle], None]) -> None:
    """Have an open file make what tells its size, if that is soon done. `check` is called whenever
    others have had a turn, and at the end; it may raise OSError."""
    deadline = trio.current_time() + PATIENCE
    for _ in handle.begin():
        await trio.lowlevel.checkpoint()
        check(handle)
        if trio.current_time() >= deadline:
            return
    check(handle)


async def read(handle: Handle, offset: int, size: int, client: int) -> bytes:
    """Read from an open file, when it can be read; `client` is the task that opened it.

    Raises OSError: EINTR when a signal has come for who reads, or may have: a program that is not
    found by who opened its file has to ask again, lest it wait for ever.
    """
    deadline = trio.current_time() + PATIENCE
    while (data := handle.read(offset, size)) is None:
        with trio.move_on_at(deadline):
            await _more(handle)
        if trio.current_time() < deadline:
            continue
        if filler := handle.filler(offset, size):
            return filler
        wait = wait_of(client)
        if wait is Wait.INTERRUPTED or (wait is Wait.UNKNOWN and handle.awaited is not None):
            handle.leave(offset, size)
            raise refusal(errno.EINTR)
        deadline = trio.current_time() + PATIENCE
    return data


class Interruptible:
    """Where a long request of a task may end: at a signal for it. `check` is called often."""

    def __init__(self, client: int) -> None:
        self._client = client
        self._began = trio.current_time()
        self._next = self._began + PATIENCE

    @property
    def is_long(self) -> bool:
        """Whether it has taken so long that whoever can be given something had better have it."""
        return trio.current_time() >= self._began + PATIENCE

    def check(self) -> None:
        """Raises OSError: EINTR when a signal has come."""
        now = trio.current_time()
        if now >= self._next:
            self._next = now + PATIENCE
            if wait_of(self._client) is Wait.INTERRUPTED:
                raise refusal(errno.EINTR)


async def write(handle: Handle, offset: int, data: bytes) -> int:
    """Write to an open file; how much was taken. Raises OSError."""
    while (taken := handle.write(offset, data)) is None:
        with trio.move_on_after(PATIENCE):
            await _more(handle)
    return taken


async def flushed(handle: Handle) -> None:
    """Have an open file commit what was written to it. Raises OSError."""
    for _ in handle.flush():
        await trio.lowlevel.checkpoint()


async def prepared(node: Node, client: int) -> None:
    """Have a node prepared to be opened by `client`. Raises OSError."""
    interruptible = Interruptible(client)
    for awaited in node.prepare():
        interruptible.check()
        if awaited is None:
            await trio.lowlevel.checkpoint()
            continue
        with trio.move_on_after(PATIENCE):
            await _readable(awaited)


async def _more(handle: Handle) -> None:
    """Wait until there may be more to read."""
    if handle.awaited is None:
        await trio.lowlevel.checkpoint()
        return
    await _readable(handle.awaited)
    if not handle.ready:
        await trio.sleep(_MOMENT)


async def _readable(fd: int) -> None:
    """Wait until a descriptor can be read. Others may wait for it, too; and it may be closed
    meanwhile, and its number be another's."""
    own = os.dup(fd)
    try:
        await trio.lowlevel.wait_readable(own)
    finally:
        os.close(own)


async def let_go(kept: Kept) -> None:
    """Close what is kept open when its time is over, until nothing is."""
    seconds = kept.drop()
    while seconds is not None:
        await trio.sleep(seconds)
        seconds = kept.drop()


class Polls:
    """Open files that are being polled, by their numbers. Each has a task that waits for it, in
    `nursery`, and then ends; and ends with the file."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._waiting: dict[int, _Poll] = {}

    def add(self, number: int, handle: Handle, client: Notified) -> None:
        """Notify `client`, and not who polled this file before, once it can be read."""
        if poll := self._waiting.get(number):
            poll.client = client
            return
        assert handle.awaited is not None  # other files are always ready
        poll = self._waiting[number] = _Poll(handle, client, os.dup(handle.awaited))
        self._nursery.start_soon(poll.run, lambda: self._waiting.pop(number, None))

    def end(self, number: int) -> None:
        """The file is closed."""
        if poll := self._waiting.pop(number, None):
            poll.scope.cancel()


class _Poll:
    """One of those. It has a descriptor of its own: only one task can wait on each."""

    def __init__(self, handle: Handle, client: Notified, fd: int) -> None:
        self.client = client
        self.scope = trio.CancelScope()
        self._handle = handle
        self._fd = fd

    async def run(self, ended: Callable[[], object]) -> None:
        try:
            with self.scope:
                await trio.lowlevel.wait_readable(self._fd)
                while not self.scope.cancel_called and not self._answers():
                    await trio.sleep(_MOMENT)
                    await trio.lowlevel.wait_readable(self._fd)
                if not self.scope.cancel_called:
                    self.client.notify()
        except OSError as error:
            log.debug("a poll could not be answered: %s", error)
        except Exception:  # it would end the mount
            log.exception("a poll could not be answered")
        finally:
            ended()
            trio.lowlevel.notify_closing(self._fd)
            os.close(self._fd)

    def _answers(self) -> bool:
        """Whether a read would give something, be it an error."""
        try:
            return self._handle.ready
        except OSError:
            return True
