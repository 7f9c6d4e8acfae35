"""What `test_run` takes, and what it gives.

Source: Documentation/bpf/bpf_prog_run.rst.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fusefs.bpf import names
from fusefs.bpf.apart import with_own_descriptors
from fusefs.bpf.program import Outcome, Program
from fusefs.bpf.task import Task
from fusefs.text.errors import Incomplete, Refused
from fusefs.tree.info import Info
from fusefs.tree.node import refusal

# So many may run at a time.
_MOST = 4
# Types whose input is their context and no packet, by `enum bpf_prog_type`.
_ON_CONTEXT = frozenset(
    {"raw_tracepoint", "raw_tracepoint_writable", "syscall", "sk_lookup", "struct_ops", "tracing"}
)
_XDP_ACTION = names.Enumeration(
    enum="xdp_action", prefix="XDP_", builtin="aborted drop pass tx redirect"
)
_NUMBERS = ("repeat", "flags", "cpu")
_BYTES = ("data_in", "ctx_in")

_SO = "or not with these numbers: see Documentation/bpf/bpf_prog_run.rst"

_free = threading.BoundedSemaphore(_MOST)


@dataclass(frozen=True, slots=True)
class Request:
    """What to run a program on; and whether that was told in a text."""

    data: bytes
    context: bytes
    numbers: Mapping[str, int]
    is_text: bool = False


def begin(program: Program, request: Request) -> Task[bytes]:
    """Run a program. It takes as long as it does, unless it is interrupted between two of many
    times. Raises OSError: EBUSY when too many are being run."""
    if not _free.acquire(blocking=False):
        raise OSError(errno.EBUSY, "too many programs are being run: try again")
    try:
        held = Program(os.dup(program.fd))
    except OSError:
        _free.release()
        raise

    def work() -> bytes:
        try:
            with held:
                return _shown(held, request, _outcome(held, request))
        except OSError as error:
            if error.errno == errno.EFAULT:
                reason = "the kernel runs no program so that is attached as this one is"
                raise refusal(errno.EOPNOTSUPP, reason) from None
            if error.errno == errno.EINTR:
                raise refusal(errno.ECANCELED, "the run was ended before its end") from None
            if error.errno != errno.EINVAL:
                raise
            sizes = f"{len(request.data)} bytes of data and {len(request.context)} of context"
            raise refusal(errno.EINVAL, f"the kernel does not run it on {sizes}, {_SO}") from None
        finally:
            _free.release()

    try:
        return Task(work)
    except OSError:
        held.close()
        _free.release()
        raise


def _outcome(program: Program, request: Request) -> Outcome:
    run = functools.partial(program.run, request.data, request.context, **request.numbers)
    if names.name_of(names.PROGRAM_TYPE, program.info.type) == "syscall":
        # It may open and close descriptors (bpf_sys_bpf, bpf_sys_close) of whoever runs it.
        return with_own_descriptors(run)
    return run()


def parsed(program: Program, data: bytes) -> Request:
    """What is asked for by a write: bytes, or a JSON object that has them in hexadecimal, as
    `{"data_in": "00…", "ctx_in": "…", "repeat": 1000}`. Raises `Refused`, and `Incomplete` for the
    beginning of such an object."""
    printed = data.translate(None, b"\t\n\r")
    if printed.lstrip().startswith(b"{") and data.isascii() and printed.decode().isprintable():
        return _from_json(data.decode())
    if names.name_of(names.PROGRAM_TYPE, program.info.type) in _ON_CONTEXT:
        return Request(b"", data, {})
    return Request(data, b"", {})


def _from_json(text: str) -> Request:
    try:
        given: Any = json.loads(text, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        cut = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string")
        if cut:
            raise Incomplete("the request is not whole") from None
        raise Refused(f"this is no JSON: {error.msg}", error.pos) from None
    except Refused:
        raise
    except (ValueError, RecursionError) as error:  # thousands of digits, or of brackets
        raise Refused(f"this is too much JSON: {error}") from None
    unknown = given.keys() - {*_NUMBERS, *_BYTES}
    if unknown:
        known = ", ".join((*_BYTES, *_NUMBERS))
        raise Refused(f"expected {known}, got {sorted(unknown)[0]!r}", text.find(min(unknown)))
    data, context = (_from_hex(text, given, name) for name in _BYTES)
    numbers = {name: given[name] for name in _NUMBERS if name in given}
    for name, number in numbers.items():
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 1 << 32:
            raise Refused(f"{name}: expected a number of 32 bits", text.find(name))
    return Request(data, context, numbers, is_text=True)


def _once(pairs: Sequence[tuple[str, Any]]) -> Mapping[str, Any]:
    """An object whose names are all different."""
    given = dict(pairs)
    if len(given) != len(pairs):
        raise Refused("a name is there twice")
    return given


def _from_hex(text: str, given: Mapping[str, Any], name: str) -> bytes:
    try:
        return bytes.fromhex(given.get(name, ""))
    except (TypeError, ValueError):
        raise Refused(f"{name}: expected hexadecimal digits", text.find(name)) from None


def _shown(program: Program, request: Request, outcome: Outcome) -> bytes:
    result: Info = {"retval": outcome.retval}
    if names.name_of(names.PROGRAM_TYPE, program.info.type) == "xdp":
        result["action"] = names.name_of(_XDP_ACTION, outcome.retval)
    result["duration_ns"] = outcome.duration or None  # of some types it is not measured
    if request.data:
        result["data_out"] = outcome.data.hex()
    if request.context:
        result["ctx_out"] = outcome.context.hex()
    return f"{json.dumps(result)}\n".encode()
