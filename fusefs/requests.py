"""What all handlers of FUSE requests have in common.

Any exception but FUSEError that a handler lets through kills the mount. So every handler is
wrapped by `request`, which has an errno for each.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import os
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import pyfuse3
from pyfuse3 import FUSEError, RequestContext

from fusefs.bpf import libc
from fusefs.bpf.credentials import Caller, capabilities_of, overrides_modes, sees_processes
from fusefs.bpf.syscall import ENOTSUPP
from fusefs.tree.node import Directory, refusal

if TYPE_CHECKING:
    from fusefs.operations import Operations

log = logging.getLogger(__name__)

# What must not be answered, and what is instead: on ENOSYS the kernel never asks for the like
# again, so that nothing could be opened, say, in all of the mount any more (fc->no_open in
# fs/fuse/file.c); and it takes no answer above 511: a client would wait for ever
# (fuse_dev_do_write).
_MEANT = {errno.ENOSYS: errno.EOPNOTSUPP, ENOTSUPP: errno.EOPNOTSUPP}
_LARGEST = 511

P = ParamSpec("P")
R = TypeVar("R")
Handler = Callable[Concatenate["Operations", P], Coroutine[Any, Any, R]]


def request(handler: Handler[P, R]) -> Handler[P, R]:
    """Let a handler fail with nothing but an errno.

    OSError keeps its own, want of memory is ENOMEM; anything unforeseen is EIO, with its traceback
    in the log, and the mount goes on.
    """
    name = handler.__name__

    @functools.wraps(handler)
    async def wrapper(self: Operations, /, *args: P.args, **kwargs: P.kwargs) -> R:
        self.root.turn()
        try:
            result = await handler(self, *args, **kwargs)
        except OSError as error:
            number = error.errno or errno.EIO
            log.debug("%s: %s", Shown(name, args), errno.errorcode.get(number, number))
            raise FUSEError(_answer(number)) from error
        except MemoryError:
            # Nor may there be enough to say so. Its frames, and what they hold, are let go.
            with contextlib.suppress(MemoryError):
                log.warning("%s: there is not enough memory", Shown(name, args))
            raise FUSEError(errno.ENOMEM) from None
        except Exception as error:
            log.exception("%s failed", Shown(name, args))
            raise FUSEError(errno.EIO) from error
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%s", Shown(name, args))
        return result

    return wrapper


def _answer(number: int) -> int:
    """What is answered for an errno."""
    number = _MEANT.get(number, number)
    return number if 0 < number <= _LARGEST else errno.EIO


class Shown:
    """A request as the log shows it; made only if the log does."""

    def __init__(self, name: str, arguments: tuple[object, ...]) -> None:
        self._name = name
        self._arguments = arguments

    def __str__(self) -> str:
        plain = [repr(a)[:80] for a in self._arguments if isinstance(a, int | bytes | list)]
        callers = [a for a in self._arguments if isinstance(a, RequestContext)]
        by = "".join(f" by pid {ctx.pid} uid {ctx.uid}" for ctx in callers)
        return f"{self._name}({', '.join(plain)}){by}"


def caller_of(ctx: RequestContext) -> Caller:
    """Who asks, with all their groups and capabilities, which the request itself does not carry.

    They are those of the thread that waits for the answer, and cannot do anything else until then.
    """
    if ctx.uid != 0:
        return Caller(ctx.uid, ctx.gid, _groups(ctx.pid))
    capabilities = capabilities_of(ctx.pid)
    if _own_capabilities() & ~capabilities == 0:
        return _root(ctx.gid)
    return Caller(0, ctx.gid, _groups(ctx.pid), capabilities)


def check_rights(directory: Directory, caller: Caller, ctx: RequestContext, wanted: int) -> None:
    """Raise PermissionError for who may not do what is `wanted` in a directory, a sum of those that
    access(2) takes.

    The kernel has judged so, but by what it was told of the directory up to `FRESH` ago; and where
    a pin and its `entries/` are, there may be another pin by now, which somebody has renamed for
    that.
    """
    if caller.changes_all or directory.attributes().permit(caller, wanted):
        return
    if not overrides_modes(ctx.pid, changes=bool(wanted & os.W_OK)):
        raise refusal(errno.EACCES)


def _groups(thread: int) -> frozenset[int]:
    if not sees_processes():
        return frozenset()
    try:
        return frozenset(pyfuse3.get_sup_groups(thread))
    except (FileNotFoundError, ProcessLookupError):
        return frozenset()  # it is in a pid namespace that we do not see


@functools.lru_cache(16)
def _root(gid: int) -> Caller:
    return Caller(0, gid, frozenset(os.getgroups()))


@functools.cache
def _own_capabilities() -> int:
    return libc.capabilities()
