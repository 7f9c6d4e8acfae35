"""Where messages go: to standard error, to the journal behind it, or to syslog."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import sys
from logging.handlers import SysLogHandler

_SYSLOG = "/dev/log"
_STDERR = 2
# The journal reads a line's priority from its beginning (sd-daemon(3)), in syslog(3)'s numbers.
_PRIORITIES = {
    logging.DEBUG: SysLogHandler.LOG_DEBUG,
    logging.INFO: SysLogHandler.LOG_INFO,
    logging.WARNING: SysLogHandler.LOG_WARNING,
    logging.ERROR: SysLogHandler.LOG_ERR,
    logging.CRITICAL: SysLogHandler.LOG_CRIT,
}


def begin(name: str, *, foreground: bool, debug: bool) -> None:
    """Send messages to where who runs this looks for them: in the foreground to standard error,
    else to syslog. `name` is this program's."""
    # With a syslog that is gone, there is nobody to tell of it.
    logging.raiseExceptions = False
    if not foreground:
        handler, formatter = _syslog(), logging.Formatter(f"{name}[%(process)d]: %(message)s")
    else:
        handler = _StandardError() if sys.stderr else logging.NullHandler()
        formatter = logging.Formatter(f"{name}[%(process)d]: %(levelname)s: %(message)s")
        if is_journal():  # which adds the name and the number itself
            formatter = _JournalFormatter("%(message)s")
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, handlers=[handler])


def is_journal() -> bool:
    """Whether standard error is a stream to the journal: its device and inode are those that
    systemd has put into the environment (JOURNAL_STREAM in systemd.exec(5)). Children inherit
    that, too, whatever becomes of their standard error."""
    try:
        status = os.fstat(_STDERR)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def for_journal(text: str, level: int) -> str:
    """The text as the journal is to get it: each line is a message there, and tells its level."""
    prefix = f"<{_PRIORITIES.get(level, SysLogHandler.LOG_INFO)}>"
    return "\n".join(prefix + line for line in text.split("\n"))


class _StandardError(logging.Handler):
    """Standard error, for as much as can be written without waiting: whoever reads it may have
    stopped (a pager, a terminal after Ctrl-S), and all requests would wait with this process. How
    many messages were lost is said before the next.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lost = 0
        self._writable = select.poll()
        self._writable.register(_STDERR, select.POLLOUT)

    def emit(self, record: logging.LogRecord) -> None:
        told = f"{self._lost} messages before this one were lost\n" if self._lost else ""
        self._lost += 1
        # There may be no place for it, or nobody who reads it any more; or no memory to say so.
        with contextlib.suppress(OSError, MemoryError):
            if self._write(f"{told}{self.format(record)}\n"):
                self._lost = 0

    def _write(self, text: str) -> bool:
        """Write a text; whether that could be done."""
        data = text.encode(errors="backslashreplace")
        while data and self._writable.poll(0):
            # A pipe that can be written has room for so much (pipe(7)).
            data = data[os.write(_STDERR, data[: select.PIPE_BUF]) :]
        return not data


class _JournalFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return for_journal(super().format(record), record.levelno)


def _syslog() -> logging.Handler:
    if not os.path.exists(_SYSLOG):
        return logging.NullHandler()  # nobody listens on this machine
    handler = SysLogHandler(_SYSLOG, SysLogHandler.LOG_DAEMON)
    handler.append_nul = False  # which syslog(3) does not send either
    return handler
