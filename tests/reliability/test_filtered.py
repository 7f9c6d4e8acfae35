"""Under a filter of system calls, as containers have: what can be shown is, the rest says why."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.maps import make_map, pin, u32, u64
from support.mounting import COMMAND, Mount, mounts_at
from support.samples import Workshop, workshop
from support.shell import Result, run
from support.soaking import Figure, passing

from fusefs.bpf.map import MapType

Mounter = Callable[..., Mount]

FILTER = Path(__file__).with_name("seccomp_command.py")
DENIED = "Operation not permitted\n"
# What is tried: commands, and what they say where nothing is refused.
USUAL = {
    "ls sample/entries": "1\n",
    "cat sample/entries/1": "500\n",
    "ls -l sample/entries | wc -l": "2\n",
    "cat sample/entries.jsonl": '{"key": 1, "value": 500}\n',
    "cat sample/count": "1\n",
    "grep -c ^type: sample/info prog/info": "sample/info:1\nprog/info:1\n",
    "echo 7 > sample/entries/2; cat sample/entries/2": "7\n",
    'echo \'{"key": 2, "value": 8}\' > sample/entries.jsonl; cat sample/entries/2': "8\n",
    "rm sample/entries/2; ls sample/entries": "1\n",
    "grep -c '^fill:' prog/xlated": "1\n",
    "ls prog/maps > /dev/null": "",
    "mkdir new; mv sample new/moved; mv new/moved sample; rmdir new; ls": (
        "maps\nmaps.debug\nprog\nprograms\nprogs.debug\nsample\n"
    ),
    "head -c 64 /dev/zero > prog/test_run; grep -c retval prog/test_run": "1\n",
    "grep -c ^digraph .by-id/graph.dot": "1\n",
    "ls .by-id": "btfs\ngraph.dot\ngraph.svg\nlinks\nmaps\nprograms\n",
}


def under(rules: str) -> list[str]:
    """The command, under a filter."""
    return [sys.executable, "-P", str(FILTER), rules, *COMMAND]


# What a mount does without, each by itself: nothing of what is tried says anything else.
SPARED = [
    *(f"bpf:{command}={answer}" for answer in ("EPERM", "ENOSYS") for command in (
        "MAP_LOOKUP_BATCH", "MAP_UPDATE_BATCH", "PROG_QUERY", "LINK_GET_NEXT_ID",
        "LINK_GET_FD_BY_ID", "MAP_GET_NEXT_ID", "PROG_GET_NEXT_ID", "MAP_GET_FD_BY_ID",
        "BTF_GET_NEXT_ID", "ENABLE_STATS",
    )),
    *(f"{call}={answer}" for answer in ("EPERM", "ENOSYS") for call in (
        "statx", "inotify_init1", "inotify_add_watch", "pidfd_open", "pidfd_getfd",
        "open_by_handle_at", "name_to_handle_at", "memfd_create", "close_range", "capset",
        "setgroups", "setfsuid", "prctl", "userfaultfd", "perf_event_open", "process_vm_readv",
        "ptrace", "kcmp", "unshare", "setns", "getrandom", "fadvise64", "rseq", "membarrier",
    )),
    "clone3=ENOSYS",  # where EPERM is answered, the C library makes no threads at all
    "vfork=EPERM",
]  # fmt: skip


@pytest.fixture
def filled(bpffs: Path) -> Iterator[Workshop]:
    """A bpffs with a map and a program."""
    with workshop(bpffs) as made:
        sample = make_map(MapType.HASH)
        sample.update(u32(1), u64(500))
        pin(bpffs / "sample", sample)
        pin(bpffs / "prog", made.program("fill"))
        sample.close()
        yield made


def tried(mount: Mount) -> dict[str, Result]:
    """What says something else than where nothing is refused."""
    found = {command: mount.sh(command, seconds=15) for command in USUAL}
    return {
        command: result
        for command, result in found.items()
        if (result.stdout, result.stderr) != (USUAL[command], "")
    }


def test_what_can_be_spared(mounter: Mounter, filled: Workshop) -> None:
    """All of it together."""
    mount = mounter(command=under(",".join(rule for rule in SPARED if "ENOSYS" in rule)))
    assert tried(mount) == {}
    text = mount.sh("grep ^related sample/info").stdout
    assert "not known" in text


@pytest.mark.soak(short=0)
def test_each_that_can_be_spared(
    mounter: Mounter, filled: Workshop, span: float, figure: Figure
) -> None:
    for turn in passing(span):
        rule = SPARED[turn % len(SPARED)]
        mount = mounter(command=under(rule))
        assert (rule, tried(mount)) == (rule, {})
        mount.end()
    figure("mounts with a system call refused", turn + 1)


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("bpf=EPERM", "no permission for bpf(2): run it as root"),
        ("bpf=ENOSYS", "no permission for bpf(2): run it as root"),
        ("openat2=ENOSYS", "no openat2(2): it takes Linux 5.6, and a container that allows it"),
        ("openat2=EPERM", "no openat2(2): it takes Linux 5.6, and a container that allows it"),
        ("mount=EPERM", ""),
    ],
)
@pytest.mark.parametrize("mode", [[], ["-f"]], ids=["background", "foreground"])
def test_what_it_does_not_start_without(
    bpffs: Path, place: Path, rule: str, reason: str, mode: list[str]
) -> None:
    result = run([*under(rule), str(bpffs), str(place), *mode], seconds=20)
    assert result.code == 1, result
    assert result.stderr.splitlines()[-1].startswith(f"bpf-fusefs: {reason}"), result
    assert "Traceback" not in result.stderr
    assert not mounts_at(place)


def test_a_call_that_is_missing_ends_nothing_else(mounter: Mounter, filled: Workshop) -> None:
    """On ENOSYS the kernel would take it that files cannot be opened in this mount, ever."""
    mount = mounter(command=under("eventfd2=ENOSYS"))
    assert mount.sh("cat sample/info").stderr.endswith("Operation not supported\n")
    assert mount.sh("cat sample/entries/1").stdout == "500\n"


@pytest.mark.parametrize("answer", ["EPERM", "ENOSYS"])
def test_lookups_are_refused(mounter: Mounter, filled: Workshop, answer: str) -> None:
    mount = mounter(command=under(f"bpf:MAP_LOOKUP_ELEM={answer},bpf:MAP_LOOKUP_BATCH={answer}"))
    for command in ("cat sample/entries/1", "cat sample/entries.jsonl", "cat sample/count"):
        assert mount.sh(command).stderr.endswith(DENIED), command
    assert mount.sh("grep -c ^type: sample/info").stdout == "1\n"
