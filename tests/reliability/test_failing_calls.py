"""System calls that fail: for each kind of operation, each of the calls that it makes, and each
errno that may be met."""

from __future__ import annotations

import errno
import random
import sys
from collections.abc import Iterator

import pytest
from support import failing_calls
from support.actions import ACTIONS
from support.failing_calls import Plan
from support.mounting import Mount, mounted, mounted_bpffs, temporary_directory
from support.soaking import Figure, passing
from support.stage import stage
from support.trials import Failing, descriptors, no_growth
from support.waiting import eventually

# What a user may be answered when a call failed with an errno. EAGAIN is what the kernel says of a
# link that is not there yet, and EBUSY of a queue; and on EINTR programs ask again.
ANSWERS = {
    errno.ENOMEM: {errno.ENOMEM},
    errno.EAGAIN: {errno.EAGAIN, errno.ENOENT},
    errno.EBUSY: {errno.EBUSY, errno.ENOENT},
    errno.EINTR: {errno.EINTR, errno.EIO, errno.ECANCELED},
}
# Errors that tell something of what was asked for, so that there is an answer to them: less is
# shown, or it is done in another way.
TELLING = [errno.EPERM, errno.EINVAL]


@pytest.fixture(scope="module")
def failing() -> Iterator[tuple[Failing, Mount]]:
    """A mount whose calls can be made to fail."""
    with (
        temporary_directory() as directory,
        mounted_bpffs() as bpffs,
        stage(bpffs, 2000) as made,
    ):
        plan = directory / "plan"
        command = [sys.executable, "-P", failing_calls.__file__, str(plan)]
        with mounted(bpffs, command=command, complains=True) as mount:
            yield Failing(made, mount, Plan(plan)), mount


@pytest.mark.soak(short=3, share=3)
def test_no_call_that_fails_leaves_anything_half_done(
    failing: tuple[Failing, Mount], span: float, figure: Figure
) -> None:
    trials, mount = failing
    tried = 0
    with no_growth(lambda: len(descriptors(mount))):
        for _ in passing(span):
            name = random.choice(list(ACTIONS))
            error = random.choice([*ANSWERS, *TELLING])
            which = random.randint(1, trials.calls(name))
            answer = trials.attempt(name, trials.fault(which, error), exact=error in ANSWERS)
            what = f"{name}, call {which}, {errno.errorcode[error]}: {errno.errorcode.get(answer)}"
            assert error in TELLING or answer in ANSWERS[error] | {0}, what
            tried += 1
    figure("operations with a call that fails", tried)
    figure("of which answered with an error", tried - trials.answers["done"])


@pytest.mark.parametrize(
    "name", ["write", "save", "create", "delete", "rename", "replace a slot", "swap the program"]
)
def test_the_reason_is_in_the_error_log(failing: tuple[Failing, Mount], name: str) -> None:
    trials, mount = failing
    pins = ["sample", "outer", "link"]

    def is_told() -> bool:
        for which in range(1, trials.calls(name) + 1):
            if trials.attempt(name, trials.fault(which, errno.ENOMEM)):
                told = "".join(mount.error_log(pin) for pin in pins)
                if ": Cannot allocate memory (BPF_" in told:
                    return True
        return False

    eventually("it is told", is_told, 20)  # what is kept for a moment spares some calls


@pytest.mark.parametrize(
    ("name", "error"),
    [("dump", errno.EINTR), ("mkdir", errno.ENOMEM), ("symlink", errno.EAGAIN)],
)
def test_each_call_by_itself(failing: tuple[Failing, Mount], name: str, error: int) -> None:
    """Those that once went on for ever, or were done although they failed."""
    trials, _ = failing
    answers = {0}
    for _ in range(5):  # what is kept for a moment spares some calls
        for which in range(1, trials.calls(name) + 1):
            answers.add(trials.attempt(name, trials.fault(which, error)))
        if answers > {0}:
            break
    assert answers > {0}
    assert answers <= ANSWERS[error] | {0}
