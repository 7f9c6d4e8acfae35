"""The documentation: the blocks of code on its pages, and running those that are commands.

How pages are written, so that they can be run:

- A fenced block whose language is `console` has commands and what they print. A line that begins
  with `# ` is a command, typed by root; lines after it that begin with `> ` belong to it; all
  others are its output, the errors among it.
- All commands of a page run in one bash, in order, in namespaces of their own (mounts, processes,
  network, cgroups): /sys/fs/bpf is a fresh bpffs with the samples in `demo`, /mnt/bpf is a mount of
  it, /tmp, /mnt, /run, /usr/local/sbin and /var/backups are empty, /etc is a copy, and nothing else
  of the root file system can be written. A page whose first command runs bpf-fusefs begins without
  that mount.
- A line `…` stands for any number of lines, and a `…` within a line for anything. `_VARYING` has
  what may be different each time. All else is to be as the page shows it.
- ```` ```console any-order ```` : the lines of each output come in an order that means nothing.
- ```` ```console not-run: REASON ```` : its commands are not run.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from support.cgroups import cgroup
from support.shell import LET_OTHERS_GO
from support.waiting import eventually

ROOT = Path(__file__).parents[2]
_SECONDS = 100  # for a page: it is killed then
_ANY = "…"
_NOT_RUN = "not-run:"
_ANY_ORDER = "any-order"

_FENCE = re.compile(r"(`{3,}|~{3,})[ \t]*(\S*)[ \t]*(.*)")

# What varies from one run to the next, and the pattern of what may be in its place. `{1}` is the
# first group as it is.
_VARYING = [
    (r"…", r".*"),
    (r"(?<=^total )\d+", r"\d+"),
    # `ls -l`: links, owner, group, size
    (r"(?<=^[bcdlps-][rwxsStT-]{9}) +\d+ +(\w+) +(\w+) +\d+(?= )", r" +\d+ +{1} +{2} +\d+"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[.\d]*Z?", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[.\d]*Z?"),
    (r"[A-Z][a-z]{2} [ \d]\d (?:\d\d:\d\d| \d{4})", r"[A-Z][a-z]{2} [ \d]\d (?:\d\d:\d\d| \d{4})"),
    (r"bash: (?:line \d+: )?", r"bash: (?:line \d+: )?"),
    # One for each CPU, or ids: how many there are depends on the machine.
    (r"\[\d+(?:, \d+)*\]", r"\[\d+(?:, \d+)*\]"),
    (r"\b(maps|programs|links|btfs)/\d+", r"{1}/\d+"),
    (r"^ *\d+(?= )", r" *\d+"),  # ids in a column
    # Others may have turned the statistics of all programs on.
    (r"\b(run_cnt: )\d+", r"{1}\d+"),
    (r"\b(\w*(?:id|_ns)\"?: )(?:[\d.]+|null)", r"{1}(?:[\d.]+|null)"),
    (r"(?<![0-9A-Za-z])(?:0x[0-9a-f]{5,}|[0-9a-f]{16})(?![0-9A-Za-z])", r"(?:0x)?[0-9a-f]+"),
    (r"\d+\.\d{6,}", r"\d+\.\d+"),
    (r"(?<![.\d])\d{5,}", r"\d+"),  # ids, large sizes, counts of the kernel's
    (r"[ \t]+", r"[ \t]+"),
]


@dataclass(frozen=True)
class Block:
    """A fenced block; `line` is that of its first line within, and `remark` what follows the
    language."""

    page: Path
    line: int
    language: str
    remark: str
    lines: tuple[str, ...]

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def why_not_run(self) -> str | None:
        """The reason why its commands are not run, or None where they are."""
        if self.language != "console" or not self.remark.startswith(_NOT_RUN):
            return None
        return self.remark.removeprefix(_NOT_RUN).strip()


@dataclass(frozen=True)
class Command:
    """A command on a page, and the output that is shown."""

    where: str
    text: str
    output: tuple[str, ...]
    any_order: bool = False


def pages() -> list[Path]:
    """All pages, in order."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page."""
    found: list[Block] = []
    opened: tuple[int, re.Match[str]] | None = None
    lines = page.read_text().splitlines()
    for number, line in enumerate(lines, 1):
        if opened is None:
            if match := _FENCE.fullmatch(line):
                opened = number, match
        elif line.rstrip() == opened[1][1]:
            start, match = opened
            within = tuple(lines[start : number - 1])
            found.append(Block(page, start + 1, match[2], match[3].strip(), within))
            opened = None
    assert opened is None, f"{page.name}:{opened[0] if opened else 0}: the block does not end"
    return found


def outside_of_blocks(page: Path) -> list[tuple[int, str]]:
    """The lines of a page that are in no fenced block, and their numbers."""
    inside = {
        number
        for block in blocks(page)
        for number in range(block.line - 1, block.line + len(block.lines) + 1)
    }
    lines = enumerate(page.read_text().splitlines(), 1)
    return [(number, line) for number, line in lines if number not in inside]


def commands_of(block: Block) -> Iterator[Command]:
    """The commands of a block of them."""
    place = block.page.relative_to(ROOT)
    any_order = block.remark == _ANY_ORDER
    text, output, start = "", list[str](), 0
    for number, line in enumerate(block.lines, block.line):
        if line.startswith("# "):
            if start:
                yield Command(f"{place}:{start}", text, tuple(output), any_order)
            text, output, start = line[2:], [], number
        elif line.startswith("> ") and start and not output:
            text += "\n" + line[2:]
        else:
            assert start, f"{place}:{number}: output without a command"
            output.append(line)
    if start:
        yield Command(f"{place}:{start}", text, tuple(output), any_order)


def commands(page: Path) -> list[Command]:
    """The commands of a page that are run."""
    run = (b for b in blocks(page) if b.language == "console" and b.why_not_run is None)
    return [command for block in run for command in commands_of(block)]


# Running them.

_MARK = "\x1e"  # a control character that no output has: the record separator

_SET_UP = """
set -eu
mount -t tmpfs -o mode=755 tmpfs /mnt
mkdir /mnt/bpf /mnt/checkout
mount --bind {root} /mnt/checkout
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p {root}
mount --move /mnt/checkout {root}
rmdir /mnt/checkout
cp -a /etc /run/etc
mount --bind /run/etc /etc
mount -t tmpfs -o mode=755 tmpfs /usr/local/sbin
mount -t tmpfs -o mode=755 tmpfs /var/backups
mount -t bpf -o mode=700 bpf /sys/fs/bpf
umount -R -l /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -o remount,bind,ro /
ip link set lo up
{python} {root}/scripts/demo /sys/fs/bpf/demo
cd /
"""
_MOUNT = """
bpf-fusefs /mnt/bpf -f >/run/log 2>&1 &
until mountpoint -q /mnt/bpf; do kill -0 $!; sleep 0.01; done
"""
_BEGIN = f"set +eu; printf '\\n{_MARK}\\n'\n"
_END = "cat /run/log 2>/dev/null\n"


def _script(page: Sequence[Command]) -> str:
    python = shlex.quote(sys.executable)
    parts = [LET_OTHERS_GO, _SET_UP.format(root=shlex.quote(str(ROOT)), python=python)]
    if not re.match(r"bpf-fusefs\b", page[0].text):
        parts.append(_MOUNT)
    parts.append(_BEGIN)
    # A newline ends what has none.
    mark = f"printf '\\n{_MARK}\\n'"
    parts += [f"eval {shlex.quote(command.text)}\n{mark}\n" for command in page]
    return "".join([*parts, _END])


def run(page: Sequence[Command]) -> tuple[list[list[str]], str]:
    """Run the commands of a page: the lines that each has printed, and what the mount has logged.

    There are fewer outputs than commands where one of them has ended the shell, or none has ended.
    """
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/tmp",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "COLUMNS": "80",
        "TABSIZE": "0",  # for ls: spaces, and no tabs
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    namespaces = ["--mount", "--pid", "--fork", "--kill-child", "--net", "--mount-proc", "--cgroup"]
    with cgroup("documentation") as group, tempfile.TemporaryFile() as output:
        # What it makes in its namespace of cgroups is below `group`.
        enter = f'echo 0 > {group}/cgroup.procs; exec unshare {" ".join(namespaces)} bash -c "$0"'
        with subprocess.Popen(
            ["bash", "-c", enter, _script(page)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        ) as process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_SECONDS)
            _end(group)
        output.seek(0)
        text = output.read().decode("utf-8", "replace")
    before, *outputs = text.split(f"\n{_MARK}\n")
    assert outputs, f"it did not begin: {before}"
    log = outputs.pop() if len(outputs) > len(page) else ""
    return [printed.splitlines() for printed in outputs], log


def _end(group: Path) -> None:
    """End all that still runs in a cgroup, and remove the cgroups in it."""
    (group / "cgroup.kill").write_text("1")
    events = group / "cgroup.events"
    eventually("all have ended", lambda: "populated 0" in events.read_text())
    for directory, _names, _files in os.walk(group, topdown=False):
        if Path(directory) != group:
            os.rmdir(directory)


# Comparing.


def pattern(line: str) -> str:
    """A regular expression for what may be in the place of a line that is shown."""
    table = re.compile("|".join(f"(?P<v{n}>{shown})" for n, (shown, _) in enumerate(_VARYING)))
    made, at = [], 0
    for match in table.finditer(line):
        made.append(re.escape(line[at : match.start()]))
        number = int((match.lastgroup or "v0")[1:])
        shown, instead = _VARYING[number]
        groups = re.compile(shown).match(line, match.start())
        parts = groups.groups() if groups else ()
        for group, part in enumerate(parts, 1):
            instead = instead.replace(f"{{{group}}}", re.escape(part))
        made.append(instead)
        at = match.end()
    return "".join([*made, re.escape(line[at:])])


def _matched_in_any_order(patterns: Sequence[re.Pattern[str]], printed: Sequence[str]) -> bool:
    left = list(printed)
    for one in patterns:
        found = next((line for line in left if one.fullmatch(line)), None)
        if found is None:
            return False
        left.remove(found)
    return not left


def difference(command: Command, printed: Sequence[str]) -> str:
    """How what was printed differs from what is shown; empty where it does not."""
    patterns = [re.compile(pattern(line)) for line in command.output]
    if command.any_order:
        if _matched_in_any_order(patterns, printed):
            return ""
    else:
        whole = "".join(
            r"(?:.*\n)*" if line.strip() == _ANY else f"{one.pattern}\\n"
            for line, one in zip(command.output, patterns, strict=True)
        )
        if re.fullmatch(whole, "".join(f"{line}\n" for line in printed)):
            return ""
    # Lines that are as they should be are the same on both sides.
    same = [
        next((s for s, p in zip(command.output, patterns, strict=True) if p.fullmatch(line)), line)
        for line in printed
    ]
    lines = difflib.unified_diff(command.output, same, "shown", "printed", lineterm="", n=2)
    return "\n".join([f"{command.where}: # {command.text}", *list(lines)[2:]])
