"""Work in a thread of its own, for what takes long in the kernel, or long to compute: whoever wants
the result can wait for a descriptor, as for anything else."""

from __future__ import annotations

import _thread
import contextlib
import errno
import os
import signal
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

# A signal that nobody else uses: one that does nothing, but that a thread has it.
_INTERRUPT = signal.SIGRTMIN + 1
_AGAIN = 0.005  # seconds until it is sent, and sent again


def allow_interrupts() -> None:
    """Set the signal aside that interrupts tasks. To be called by the main thread."""
    signal.signal(_INTERRUPT, lambda _number, _frame: None)


def _interrupts_allowed() -> bool:
    return callable(signal.getsignal(_INTERRUPT))


class Task(Generic[T]):
    """Calls `work` once. `ended` is a descriptor that can be read when that is done, until `leave`
    gives it back; who leaves a task that goes on wants nothing of it any more."""

    def __init__(self, work: Callable[[], T]) -> None:
        """Raises OSError: EAGAIN when there cannot be another thread."""
        self._work = work
        self._answer: T
        self._error: Exception | None = None
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._left = False
        self._interrupted = False
        self._thread: int | None = None
        self.done = False
        self.ended = os.eventfd(0)
        try:
            # `Thread.start` waits until the thread runs, and for ever where memory is short.
            _thread.start_new_thread(self._run, ())
        except (RuntimeError, MemoryError) as error:
            os.close(self.ended)
            raise OSError(errno.EAGAIN, str(error)) from error

    def _run(self) -> None:
        self._thread = threading.get_ident()
        try:
            self._answer = self._work()
        except Exception as error:  # noqa: BLE001 - it is raised where the result is asked for
            self._error = error
        with self._lock:
            self.done = True
            os.eventfd_write(self.ended, 1)
            if self._left:
                os.close(self.ended)
        self._ended.set()

    def join(self, seconds: float | None = None) -> None:
        """Wait until it is done, or for so many seconds."""
        self._ended.wait(seconds)

    def watch(self) -> int | None:
        """A descriptor of the caller's own that is like `ended`; None when it is done. Raises
        OSError."""
        with self._lock:
            return None if self.done else os.dup(self.ended)

    def interrupt(self) -> None:
        """Have what the work waits for in the kernel end with EINTR, if it can; nothing where no
        signal was set aside for it (`allow_interrupts`). It may be called more than once."""
        if _interrupts_allowed() and not self._interrupted:
            self._interrupted = True
            with contextlib.suppress(RuntimeError):  # then there is nobody to do it
                _thread.start_new_thread(self._keep_interrupting, ())

    def _keep_interrupting(self) -> None:
        # A signal that comes before the work is in the kernel is lost.
        while not self._ended.wait(_AGAIN):
            with self._lock:
                if not self.done and self._thread is not None:
                    signal.pthread_kill(self._thread, _INTERRUPT)

    def result(self) -> T:
        """What `work` gave, or what it raised. To be asked for once it is done."""
        if self._error:
            raise self._error
        return self._answer

    def leave(self) -> None:
        """Nobody waits for it any more. To be called once."""
        with self._lock:
            self._left = True
            if self.done:
                os.close(self.ended)
