"""What system calls say, and what becomes of names and attributes: the same in the mount as in
bpffs itself, but for what is meant to be otherwise."""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.maps import make_map
from support.mounting import Mount, mounted, mounted_bpffs, nested
from support.people import ROOT, THE_OWNER, THE_STRANGER, Outcome, Person, people
from support.posix_cases import CALLS, PAIRED, Case, build, cases
from support.shell import checked
from support.soaking import Figure

# Without --soak, one case in so many is tried; it has no factor in common with numbers of paths.
_ONE_IN = 11
DONE = 0


@dataclass(frozen=True)
class Deviation:
    """What is otherwise, and why: calls, all if none are named, with one of the paths, if any are;
    and the pairs of errnos that bpffs and the mount answer with."""

    reason: str
    pairs: frozenset[tuple[int, int]]
    paths: frozenset[str] = frozenset()
    calls: frozenset[str] = frozenset()

    def covers(self, case: Case, direct: int, through: int) -> bool:
        """Whether a case is such a one."""
        of_paths = not self.paths or bool(self.paths & {*case.paths})
        of_calls = not self.calls or case.call in self.calls
        return of_paths and of_calls and (direct, through) in self.pairs


_ALL = frozenset({errno.ENOENT, errno.EPERM, errno.EACCES, errno.ELOOP, errno.ENAMETOOLONG,
                  errno.EXDEV, errno.EBUSY, errno.EEXIST, errno.EINVAL})  # fmt: skip
_PINS = frozenset({"pin", "pin with a slash", "link to a pin", "root's pin"})
DEVIATIONS = (
    Deviation(
        "a pin is a directory: it is listed and entered, and opened as one",
        frozenset({(errno.ENOTDIR, DONE), (DONE, DONE), (errno.ENOTDIR, errno.EINVAL)}),
        _PINS,
        frozenset({"stat", "lstat", "list", "chdir", "open a directory", "readlink",
                   "access to search"}),
    ),
    Deviation(
        "and it is removed as one: rmdir unpins it, unlink does not",
        frozenset({(errno.ENOTDIR, DONE), (DONE, errno.EISDIR), (errno.ENOTDIR, errno.EISDIR)}),
        _PINS,
        frozenset({"rmdir", "unlink"}),
    ),
    Deviation(
        "and it is not written, where bpffs opens it and refuses every write",
        frozenset({(before, errno.EISDIR) for before in (DONE, errno.EACCES, errno.ENOTDIR)}),
        _PINS,
        frozenset({"open to write", "create", "open and truncate", "truncate"}),
    ),
    Deviation(
        "and a slash may follow it: what is said then is said without the slash, too",
        frozenset({(errno.ENOTDIR, other) for other in (DONE, errno.EPERM, errno.EACCES)}
                  | {(DONE, DONE)}),
        frozenset({"pin with a slash"}),
    ),
    Deviation(
        "and what is looked for in it is not there, or cannot be made there",
        frozenset((errno.ENOTDIR, other) for other in _ALL),
        frozenset({"below a pin"}),
    ),
    Deviation(
        "its x bits are made of its r bits, and are none of the pin's",
        frozenset({(DONE, DONE)}),
        _PINS,
        frozenset({"chmod 0711", "chmod 07711"}),
    ),
    Deviation(
        "nothing is renamed over a pin, nor a pin over anything: that would free its object",
        frozenset({(errno.EISDIR, errno.EEXIST), (DONE, errno.EISDIR), (DONE, errno.ENOTDIR)}),
        frozenset({"pin", "link to a pin"}),
        frozenset({"rename"}),
    ),
    Deviation(
        "directories have no hard links",
        frozenset({(DONE, errno.EPERM)}),
        calls=frozenset({"link"}),
    ),
    Deviation(
        "a name with a dot, which bpffs does not even look up, is not there",
        frozenset({(errno.EPERM, errno.ENOENT), (errno.EPERM, errno.EACCES)}),
        frozenset({"name with a dot"}),
    ),
    Deviation(
        "a chown to what is so already sets ctime, of which FUSE tells nothing",
        frozenset({(DONE, DONE)}),
        calls=frozenset({"chown of nothing"}),
    ),
)  # fmt: skip

# All that a directory has, by name: what it was called before, attributes, and which times changed.
Tree = dict[str, tuple[object, ...]]


def _statuses(directory: Path) -> dict[str, os.stat_result]:
    found = {"": directory.lstat()}
    for parent, directories, files in os.walk(directory):
        for path in (Path(parent, name) for name in directories + files):
            found[str(path.relative_to(directory))] = path.lstat()
    return found


def _tree(before: dict[str, os.stat_result], directory: Path) -> Tree:
    """What is there now."""
    known = {status.st_ino: (name, status) for name, status in before.items()}
    told: Tree = {}
    for name, now in _statuses(directory).items():
        called, was = known.get(now.st_ino, (None, now))
        text = os.readlink(directory / name) if stat.S_ISLNK(now.st_mode) else ""
        times = (now.st_mtime_ns != was.st_mtime_ns, now.st_ctime_ns != was.st_ctime_ns)
        told[name] = (called, now.st_mode, now.st_uid, now.st_gid, now.st_nlink, text, times)
    return told


def _run(case: Case, directory: str) -> object:
    return case.run(directory)


def _marks(statuses: dict[str, os.stat_result]) -> dict[str, tuple[int, ...]]:
    """What changes with anything that is done."""
    return {
        name: (status.st_ino, status.st_mode, status.st_mtime_ns, status.st_ctime_ns)
        for name, status in statuses.items()
    }


@dataclass(frozen=True)
class Done:
    """What a call said, what is there after it, and whether it has done anything."""

    outcome: Outcome
    tree: Tree
    changed: bool


def do(case: Case, person: Person, top: Path, behind: Path) -> Done:
    """Make the call in the directory `top`, which is `behind` in bpffs."""
    before = _statuses(behind)
    outcome = person.tell(_run, case, str(top))
    after = _statuses(behind)
    return Done(outcome, _tree(before, behind), _marks(before) != _marks(after))


def difference(one: Done, other: Done) -> list[tuple[object, ...]]:
    """What is there in one and not in the other."""
    both = {*one.tree.items()} ^ {*other.tree.items()}
    return sorted(both, key=str)


def _shown(path: Path) -> tuple[int, ...]:
    status = path.lstat()
    ids = (status.st_mode, status.st_uid, status.st_gid, status.st_nlink)
    return (*ids, status.st_mtime_ns, status.st_ctime_ns)


def check_shown(top: Path, behind: Path) -> None:
    """Directories and symbolic links have the attributes in the mount that they have in bpffs."""
    for name, status in _statuses(behind).items():
        if not stat.S_ISREG(status.st_mode):
            assert _shown(top / name) == _shown(behind / name), name


@pytest.fixture(scope="module")
def mount() -> Iterator[Mount]:
    """A mount for all users."""
    with mounted_bpffs() as source:
        source.chmod(0o755)
        with mounted(source, ["-o", "allow_other"]) as made:
            yield made


@pytest.mark.soak(short=0)
def test_it_is_as_in_bpffs(mount: Mount, request: pytest.FixtureRequest, figure: Figure) -> None:
    one_in = 1 if request.config.getoption("--soak") else _ONE_IN
    tried = [*cases()][::one_in]
    with make_map() as pinned:
        for side in ("direct", "through"):
            (mount.source / side).mkdir(mode=0o755)
            for number, _ in enumerate(tried):  # all at once: times differ by the clock's ticks
                build(mount.source / side / str(number), pinned)
    deviating: Counter[str] = Counter()
    same = 0
    with people((ROOT, THE_OWNER, THE_STRANGER)) as told:
        for number, case in enumerate(tried):
            name = str(number)
            behind, below = mount.source / "direct" / name, mount.source / "through" / name
            top = mount.path / "through" / name
            direct = do(case, told[case.user], behind, behind)
            through = do(case, told[case.user], top, below)
            assert through.outcome.allowed or not through.changed, f"{case}: {through.outcome}"
            if number % 5 == 0:
                check_shown(top, below)
            said, answered = direct.outcome, through.outcome
            if (said, direct.tree) == (answered, through.tree):
                same += 1
                continue
            covering = (d.reason for d in DEVIATIONS if d.covers(case, said.errno, answered.errno))
            reason = next(covering, "")
            assert reason, (
                f"{case}: bpffs says {said}, the mount {answered}; {difference(direct, through)}"
            )
            deviating[reason] += 1
    figure("cases", len(tried))
    figure("the same", same)
    for reason, count in deviating.items():
        figure(reason, count)
    assert one_in > 1 or {d.reason for d in DEVIATIONS} == {*deviating}, "a deviation is none"


def _of_root(calls: Iterable[str], paths: Sequence[str]) -> list[Case]:
    return [Case(call, (path,), ROOT) for call in calls for path in paths]


def _answers(person: Person, tried: Sequence[Case], top: Path) -> list[int]:
    return [person.tell(_run, case, str(top)).errno for case in tried]


def test_read_only(bpffs: Path, place: Path) -> None:
    """Each call says the same in a mount with `-o ro` as in a read-only mount of bpffs."""
    paths = ["missing", "directory", "full directory", "link to a directory", "dangling link"]
    tried = _of_root(CALLS, paths)
    with make_map() as pinned:
        build(bpffs / "case", pinned)
    checked("mount", "--bind", bpffs, place)
    checked("mount", "-o", "remount,bind,ro", place)
    with mounted(bpffs, ["-o", "ro"]) as mount, people((ROOT,)) as told:
        direct = _answers(told[ROOT], tried, place / "case")
        through = _answers(told[ROOT], tried, mount.path / "case")
        assert [*zip(tried, direct, strict=True)] == [*zip(tried, through, strict=True)]
        assert errno.EROFS in direct


def test_what_is_mounted_on_is_busy(mount: Mount) -> None:
    tried = _of_root(("rmdir", "unlink", "mkdir", "symlink", "chmod 0711", "list"), ["directory"])
    tried += [Case(call, ("directory", "missing"), ROOT) for call in PAIRED if call != "link"]
    tried += [Case(call, ("full directory", "directory"), ROOT) for call in PAIRED]
    with make_map() as pinned:
        for name in ("busy", "too"):
            build(mount.source / name, pinned)
    tmpfs = ["-t", "tmpfs", "none"]
    answers = []
    with people((ROOT,)) as told:
        for top in (mount.source / "busy", mount.path / "too"):
            with nested(top / "dir", tmpfs):
                answers.append(_answers(told[ROOT], tried, top))
    assert answers[0] == answers[1]
    assert errno.EBUSY in answers[0]
