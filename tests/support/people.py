"""Users of all kinds, each a process that does what it is told, as that user.

A process is told by a pipe, one function after another. That takes a tenth of a millisecond, and
to start one for each would take a thousand times as long.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import struct
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fusefs.bpf import libc

# Ids that no user of the machine has.
GROUP = 4_100_000
OWNER, MEMBER, SUPPLEMENTARY, STRANGER = range(4_100_001, 4_100_005)
# Capabilities, linux/capability.h.
CAP_SYS_ADMIN = 21
# What docker(1) leaves to a container that is given no more.
OF_CONTAINERS = sum(1 << number for number in (0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31))
_CLONE_NEWUSER = 0x10000000
_PR_CAPBSET_DROP, _PR_SET_DUMPABLE = 24, 4
_LAST = 40  # CAP_CHECKPOINT_RESTORE
_SIZE = struct.Struct("=I")


@dataclass(frozen=True)
class User:
    """A kind of user. `capabilities` are those that root keeps, as bits, and None for all; `mapped`
    are the lines of a uid_map(5) and gid_map, for one who is in a user namespace."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    capabilities: int | None = None
    mapped: str = ""


ROOT = User("root", 0, 0)
THE_OWNER = User("owner", OWNER, OWNER)
THE_MEMBER = User("member of the group", MEMBER, GROUP)
THE_SUPPLEMENTARY = User("supplementary member", SUPPLEMENTARY, SUPPLEMENTARY, (GROUP,))
THE_STRANGER = User("stranger", STRANGER, STRANGER)
POWERLESS = User("root without capabilities", 0, 0, capabilities=0)
CONTAINED = User("root of a container", 0, 0, capabilities=OF_CONTAINERS)
# `unshare -r` of an ordinary user, and of root.
MAPPED = User("root of a user namespace", 0, 0, mapped=f"0 {STRANGER} 1")
IDENTICAL = User("root of a user namespace of root's", 0, 0, mapped="0 0 65536")

ORDINARY = (ROOT, THE_OWNER, THE_MEMBER, THE_SUPPLEMENTARY, THE_STRANGER)
ROOTS = (POWERLESS, CONTAINED, MAPPED, IDENTICAL)


@dataclass(frozen=True)
class Outcome:
    """What came of something: its result, or the errno that it failed with."""

    result: Any = None
    errno: int = 0
    trace: str = field(default="", compare=False)

    @property
    def allowed(self) -> bool:
        """Whether it was done."""
        return not self.errno

    def __str__(self) -> str:
        return os.strerror(self.errno) if self.errno else f"{self.result!r}"


class Person:
    """A process of a user."""

    def __init__(self, user: User) -> None:
        self.user = user
        ours, theirs = socket.socketpair()
        self._socket = ours
        self.pid = os.fork()
        if self.pid == 0:
            try:
                ours.close()
                _serve(theirs)
            finally:
                os._exit(0)
        theirs.close()
        if user.mapped:
            assert self.tell(_enter_user_namespace).allowed
            Path(f"/proc/{self.pid}/uid_map").write_text(user.mapped)
            Path(f"/proc/{self.pid}/gid_map").write_text(user.mapped)
        became = self.tell(_become, user)
        assert became.allowed, (user.name, became)

    def tell(self, function: Callable[..., object], *arguments: object) -> Outcome:
        """Have it call a function of a module, and what came of that. What it raises but OSError,
        is raised here."""
        _send(self._socket, pickle.dumps((function, arguments)))
        outcome = pickle.loads(_receive(self._socket))
        assert isinstance(outcome, Outcome)
        if outcome.trace:
            raise AssertionError(f"{self.user.name}: {outcome.trace}")
        return outcome

    def close(self) -> None:
        """End it."""
        self._socket.close()
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


@contextlib.contextmanager
def people(users: Sequence[User]) -> Iterator[dict[User, Person]]:
    """A process for each of some users."""
    with contextlib.ExitStack() as stack:
        made = {}
        for user in users:
            made[user] = person = Person(user)
            stack.callback(person.close)
        yield made


def _enter_user_namespace() -> None:
    # Its owner is who makes it. Those that are mapped to others belong to them.
    libc.call("unshare", _CLONE_NEWUSER)


def _become(user: User) -> None:
    """Take on the credentials of a user, for good."""
    kept = (1 << 64) - 1 if user.capabilities is None else user.capabilities
    for number in range(_LAST + 1):
        if not kept >> number & 1 and not user.mapped:
            with contextlib.suppress(OSError):  # a kernel may have fewer
                libc.call("prctl", _PR_CAPBSET_DROP, number, 0, 0, 0)
    os.setgroups(user.groups)
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, user.uid)
    if user.capabilities is not None:
        libc.keep_capabilities(user.capabilities)
    libc.call("prctl", _PR_SET_DUMPABLE, 1, 0, 0, 0)  # else its /proc/self is root's
    os.umask(0o022)
    os.chdir("/")


def _serve(pipe: socket.socket) -> None:
    """Do what is told, until nobody tells more."""
    while told := _receive(pipe):
        function, arguments = pickle.loads(told)
        try:
            outcome = Outcome(function(*arguments))
        except OSError as error:
            outcome = Outcome(None, error.errno or -1)
        except Exception:  # noqa: BLE001 - it is raised where it was told
            outcome = Outcome(trace=traceback.format_exc())
        _send(pipe, pickle.dumps(outcome))


def _send(pipe: socket.socket, data: bytes) -> None:
    pipe.sendall(_SIZE.pack(len(data)) + data)


def _receive(pipe: socket.socket) -> bytes:
    """What was sent in one piece; nothing at the end."""
    head = pipe.recv(_SIZE.size, socket.MSG_WAITALL)
    return pipe.recv(_SIZE.unpack(head)[0], socket.MSG_WAITALL) if head else b""
