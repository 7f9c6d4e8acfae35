"""Copies of a mount, made with the tools of every day, and what is restored from them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from fusefs.bpf.bpffs import Directory
from fusefs.bpf.map import Map
from fusefs.restore.command import main
from fusefs.tree.map_view import MapView
from support.maps import dump, make_map, u32
from support.mounting import Mount, empty
from support.shell import Result
from support.waiting import eventually

# How a directory of a mount is copied into another.
TOOLS = {
    "cp -r": "cp -r {source} {copy}/",
    "cp -a": "cp -a {source} {copy}/",
    "rsync": "rsync -aX --exclude push --exclude detach {source} {copy}/",
    "tar": "tar --xattrs --warning=no-file-changed --exclude push -c {source} | "
    "tar --xattrs --xattrs-include='*' -x -C {copy}",
}
# What is told of a map that is another when it is made anew, or of what is tied to it.
_ANOTHER = frozenset(
    {"id", "btf_id", "memlock", "related", "pins", "holders", "prog_ids", "link_ids",
     "outer_map_ids", "inner_map_ids", "target_prog_ids", "owner_prog_type", "owner_jited"}
)  # fmt: skip
OURS = f"test_{os.getpid()}"  # a name for maps that others who run tests do not give to theirs
_ID = re.compile(r"map \d+|BPF_MAP_\d+_TYPES_H")


@contextlib.contextmanager
def directory() -> Iterator[Path]:
    """A directory for copies."""
    path = Path(tempfile.mkdtemp(prefix="bpf-fusefs-copy-"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


def copied(mount: Mount, names: str, tool: str, to: Path) -> Path:
    """Copy directories of the mount into another."""
    to.mkdir(exist_ok=True)
    result = mount.sh(TOOLS[tool].format(source=names, copy=to))
    # tar says so of each file that has no list of attributes.
    said = re.sub(
        r"tar: .*: Warning: Cannot \w*listxattr\w*: Operation not supported\n", "", result.stderr
    )
    assert (result.code, said) == (0, ""), result
    return to


def restore(*arguments: str | Path) -> Result:
    """The command, in this process: a Python that starts takes a quarter of a second."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as end:
            assert isinstance(end.code, int)
            code = end.code
    return Result(code, out.getvalue(), err.getvalue())


def told(mount: Mount, name: str) -> tuple[object, str]:
    """What `info.json` and `types.h` tell of a map, but for what is another's."""
    info = json.loads((mount.path / name / "info.json").read_text())
    kept = {field: value for field, value in info.items() if field not in _ANOTHER}
    return kept, _ID.sub("", (mount.path / name / "types.h").read_text())


def contents(bpf_map: Map) -> dict[bytes, bytes]:
    """All that bpf(2) gives of a map, but for bits of values that no text tells."""
    view = MapView(bpf_map)
    mask = view.value.mask
    size = bpf_map.stride

    def shown(value: bytes) -> bytes:
        return (int.from_bytes(value, "little") & mask).to_bytes(size, "little")

    return {key: shown(value) for key, value in dump(bpf_map).items()}


def pinned(path: Path) -> Map:
    """The map that is pinned there."""
    parent = Directory(str(path.parent))
    found = parent.open_pin(path.name, parent.stat(path.name).st_ino)
    assert isinstance(found, Map)
    return found


def ours() -> int:
    """How many maps of that name the kernel has."""
    count = 0
    for map_id in Map.ids():
        with contextlib.suppress(FileNotFoundError), Map.from_id(map_id) as bpf_map:
            count += bpf_map.info.name == OURS.encode()
    return count


def config(mounted: Mount, copies: Path, tool: str = "cp -r") -> Path:
    """The copy of a pin `fw/config`, which is gone; where it is."""
    (mounted.source / "fw").mkdir()
    with mounted.pin("fw/config", make_map(value="config", max_entries=8, name=OURS)) as made:
        for number in range(3):
            made.update(u32(number), bytes([1, 0, 0, 0, number, *bytes(23)]))
    copied(mounted, "fw", tool, copies)
    empty(mounted)
    eventually("the map is gone", lambda: ours() == 0)  # the mount keeps it open for a moment
    return copies / "fw/config"


def replace(file: Path, text: str | bytes) -> None:
    """Give a file other contents; it may be read-only, and may not be there."""
    file.unlink(missing_ok=True)
    file.write_bytes(text.encode() if isinstance(text, str) else text)


def edited(**fields: object) -> Callable[[Path], None]:
    """Writes other fields to `info.json`; those that are None go."""

    def edit(copy: Path) -> None:
        file = copy / "info.json"
        info = {**json.loads(file.read_text()), **fields}
        replace(
            file, json.dumps({name: value for name, value in info.items() if value is not None})
        )

    return edit


def second_line(copy: Path) -> None:
    """Writes nonsense in the second line of `entries.jsonl`."""
    file = copy / "entries.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    replace(file, lines[0] + re.sub("MODE_[A-Z]+", "MODE_WACHT", lines[1]) + lines[2])
