"""The request loop: pyfuse3's own, made cheaper.

pyfuse3's workers take turns: each takes a lock, waits until a request can be read, gives the lock
up, reads the request and awaits its handler (`_session_loop` in internal.pxi). With trio's lock
every request goes to another worker, and trio's `wait_readable` goes to sleep even when a request
is there: two rounds of the scheduler for each, which is most of what a small request costs.

pyfuse3 looks up the name `trio` in its module whenever it uses it; `pyfuse3.asyncio` lives on that.
Here another namespace is put there. Its contract:

- A worker that has finished a request reads the next one, without a pause, as long as there is one.
- When a worker sleeps, be it in a handler or for want of requests, the scheduler goes on, and
  after a handler another worker reads: a slow one holds up nobody.
- Other tasks (slow handlers, signals, timers) have their turn every `_SLICE` seconds; so has
  cancellation.
- A request whose client was killed before it could be read is nobody's error.
- pyfuse3's part is untouched: how many workers there are, the end of the mount, errors.

It knows pyfuse3's inner life. So it is used only with versions whose source was read, and after a
trial; else the stock loop serves, and the log says so.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from time import monotonic
from types import SimpleNamespace

import pyfuse3
import trio

log = logging.getLogger(__name__)

# The versions whose source was read, by their first two numbers.
_KNOWN = ("3.5",)
# For how long requests are served before others have their turn. To let them costs as much as one
# or two requests.
_SLICE = 0.001
# So many requests are served at a time. Most of them wait (`fusefs.waiting.PATIENCE`), and when all
# do, so does every other. pyfuse3 has 99 unless it is told. Each takes some kilobytes.
_MOST = 1000
# A trial takes less than a millisecond.
_TRIAL = 1.0


async def main(*, fast: bool) -> None:
    """Serve requests, as `pyfuse3.main` does; with the loop of this module if `fast` and it
    can be used. After `pyfuse3.init`, and once a process at a time."""
    if fast and _is_known(pyfuse3.__version__):
        loop = _Loop()
        with _in_place_of_trio(loop.namespace):
            if await _stands_trial(loop):
                loop.begin()
                await pyfuse3.main(max_tasks=_MOST)
                return
    elif fast:
        log.info("pyfuse3 %s is not known: its own request loop serves", pyfuse3.__version__)
    await pyfuse3.main(max_tasks=_MOST)


def _is_known(version: str) -> bool:
    return version.rpartition(".")[0] in _KNOWN


@contextlib.contextmanager
def _in_place_of_trio(namespace: SimpleNamespace) -> Iterator[None]:
    """What pyfuse3 uses as trio."""
    module = vars(pyfuse3)
    stock = module["trio"]
    module["trio"] = namespace
    try:
        yield
    finally:
        module["trio"] = stock


async def _stands_trial(loop: _Loop) -> bool:
    """Whether pyfuse3 and trio do with `loop` what it counts on. If they do not, the log says why.

    A mount begins with a request of the kernel's, FUSE_INIT, so there is one to be waited for.
    Nothing is read.
    """
    try:
        with trio.fail_after(_TRIAL):
            await _try_turns()
            wait = vars(pyfuse3)["_wait_fuse_readable"]
            if not await wait() or not loop.was_asked:
                raise RuntimeError("pyfuse3 waits for requests in another way")
    except Exception:
        log.warning("the fast request loop does not work: the stock loop serves", exc_info=True)
        return False
    return True


async def _try_turns() -> None:
    """Raises TooSlowError unless a turn is passed on by a task that goes to sleep after it."""
    turn = _Turn()
    done = trio.Event()

    async def follow() -> None:
        async with turn:
            done.set()

    async with trio.open_nursery() as nursery:
        async with turn:
            nursery.start_soon(follow)
            while not turn.is_awaited:
                await trio.lowlevel.checkpoint()
        await done.wait()
    trio.lowlevel.remove_instrument(turn)


class _Turn(trio.abc.Instrument):
    """Whose turn it is to read: a lock that its holder can give up and take again at once, although
    others wait for it. They get it when the task that gave it up goes to sleep, or ends.

    To take it is a checkpoint only if it is taken.
    """

    def __init__(self) -> None:
        self._taken = False
        self._waiting = trio.lowlevel.ParkingLot()
        trio.lowlevel.add_instrument(self)

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for it."""
        return bool(self._waiting)

    async def __aenter__(self) -> None:
        if self._taken:
            await self._waiting.park()  # who wakes it gives it the turn
        self._taken = True

    async def __aexit__(self, *_: object) -> None:
        self._taken = False

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Called by trio when a task has gone to sleep."""
        if not self._taken and self._waiting:
            self._taken = True
            self._waiting.unpark()


class _Loop:
    """What pyfuse3 is given in place of trio, in `namespace`."""

    def __init__(self) -> None:
        self.namespace = SimpleNamespace(
            Lock=_Turn,
            ClosedResourceError=trio.ClosedResourceError,
            open_nursery=_open_nursery,
            lowlevel=SimpleNamespace(
                current_task=trio.lowlevel.current_task,
                current_trio_token=trio.lowlevel.current_trio_token,
                notify_closing=trio.lowlevel.notify_closing,
                wait_readable=self._wait_readable,
            ),
        )
        self._fd = -1
        self._ready = select.poll()
        self._slice_ends = 0.0

    @property
    def was_asked(self) -> bool:
        """Whether pyfuse3 has waited for a request."""
        return self._fd >= 0

    def begin(self) -> None:
        """Before the first request is read."""
        # The kernel takes back a request that nobody has read when its client is killed
        # (fuse_remove_pending_req in fs/fuse/dev.c), even between our poll and read. That read
        # must not wait for the next one: nothing else would run.
        os.set_blocking(self._fd, False)

    async def _wait_readable(self, fd: int) -> None:
        """Wait until a request can be read: a checkpoint only if there is none, or if it is time
        for one."""
        if fd != self._fd:
            self._fd = fd
            self._ready.register(fd, select.POLLIN)
        while not (ready := self._ready.poll(0)) or monotonic() >= self._slice_ends:
            if ready:
                await trio.lowlevel.checkpoint()
            else:
                await trio.lowlevel.wait_readable(fd)
            self._slice_ends = monotonic() + _SLICE


class _Workers:
    """A nursery, as far as pyfuse3 uses it."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery

    def start_soon(
        self, worker: Callable[..., Awaitable[None]], *arguments: object, name: str
    ) -> None:
        self._nursery.start_soon(_work, worker, arguments, name=name)


@contextlib.asynccontextmanager
async def _open_nursery() -> AsyncIterator[_Workers]:
    async with trio.open_nursery() as nursery:
        yield _Workers(nursery)


async def _work(worker: Callable[..., Awaitable[None]], arguments: tuple[object, ...]) -> None:
    """Run a worker, and another in its place when it found that its request had been taken back.

    pyfuse3 counts workers where they start and where they end well, so the count stays right. What
    is lost is the old one's buffer, 1 MiB of address space with little in it: it takes a client
    that is killed in the microsecond between a poll and a read.
    """
    while True:
        try:
            await worker(*arguments)
            return
        except OSError as error:
            if error.errno != errno.EAGAIN:
                raise
