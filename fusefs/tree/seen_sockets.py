"""What was seen of sockets lately, whichever map they are in.

The kernel is asked for all sockets of the host at once (`fusefs.bpf.socket_diag`): so once for many
files that are looked at in a short time.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from collections.abc import Sequence as SequenceOf

from fusefs.bpf import socket_diag
from fusefs.text.sockets import Known
from fusefs.tree.node import FRESH
from fusefs.tree.recent import Recent

# Sockets that are remembered, and for how many seconds those that were asked for are looked for
# again along with others.
_REMEMBERED = 1 << 14
_ALONG = 1.0


class SeenSockets:
    """Sockets by their cookies."""

    def __init__(self) -> None:
        self._seen: Recent[int, tuple[float, socket_diag.Socket | None]] = Recent(_REMEMBERED)
        self._asked: Recent[int, float] = Recent(_REMEMBERED)

    def note(self, cookies: SequenceOf[int], found: Mapping[int, socket_diag.Socket]) -> None:
        """Remember what was found when somebody asked for these cookies."""
        self._ask(cookies, time.monotonic())
        self._see(cookies, found)

    def recent(self, cookies: SequenceOf[int]) -> Known:
        """What is known, as of not long ago: good enough for attributes."""
        now = time.monotonic()
        missing = [cookie for cookie in cookies if not self._fresh(cookie, now)]
        if missing:
            self._search([*self._lately(now), *missing])
        self._ask(cookies, now)
        return self._known(cookies)

    def current(self, cookies: SequenceOf[int]) -> Known:
        """What is known, as of now. A socket that was not found a moment ago, as one of another
        network namespace, is not looked for."""
        now = time.monotonic()
        missing = []
        for cookie in cookies:
            seen = self._seen.get(cookie, (0.0, None))[1]
            renewed = socket_diag.again(seen) if seen else None
            if renewed:
                self._seen[cookie] = now, renewed
            elif seen or not self._fresh(cookie, now):
                missing.append(cookie)
        if missing:
            # What was not found before is likely not found now, and all sockets are gone through.
            absent = [cookie for cookie in self._lately(now) if not self._seen[cookie][1]]
            self._search([*absent, *missing])
        self._ask(cookies, now)
        return self._known(cookies)

    def _fresh(self, cookie: int, now: float) -> bool:
        return cookie in self._seen and now - self._seen[cookie][0] < FRESH

    def _lately(self, now: float) -> list[int]:
        """What was asked for lately: whoever asks for one of many will ask for the others."""
        return [
            cookie
            for cookie, when in self._asked.items()
            if now - when < _ALONG and cookie in self._seen
        ]

    def _search(self, cookies: SequenceOf[int]) -> None:
        self._see(cookies, socket_diag.find(cookies))

    def _see(self, cookies: SequenceOf[int], found: Mapping[int, socket_diag.Socket]) -> None:
        now = time.monotonic()
        for cookie in cookies:
            self._seen[cookie] = now, found.get(cookie)

    def _ask(self, cookies: SequenceOf[int], now: float) -> None:
        for cookie in cookies:
            self._asked[cookie] = now

    def _known(self, cookies: SequenceOf[int]) -> Known:
        seen = {cookie: self._seen[cookie][1] for cookie in cookies if cookie in self._seen}
        return {cookie: one.members() for cookie, one in seen.items() if one}


seen_sockets = SeenSockets()
