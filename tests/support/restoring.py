"""Copies of a mount, made with the tools of every day, and what is restored from them."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fusefs.bpf.map import Map
from fusefs.restore.command import main
from fusefs.tree.map_view import MapView
from support.maps import dump
from support.mounting import Mount
from support.shell import Result

# How a directory of a mount is copied into another.
TOOLS = {
    "cp -r": "cp -r {source} {copy}/",
    "cp -a": "cp -a {source} {copy}/",
    "rsync": "rsync -aX --exclude push --exclude detach {source} {copy}/",
    "tar": "tar --xattrs --warning=no-file-changed --exclude push -c {source} | "
    "tar --xattrs --xattrs-include='*' -x -C {copy}",
}
# What is told of a map that is another when it is made anew, and who has it open: a test does.
_ANOTHER = {"id", "btf_id", "pins", "related", "inner_map_ids", "outer_map_ids", "memlock", "holders"}
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
    assert (result.code, result.stderr) == (0, ""), result
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
    from fusefs.bpf.bpffs import Directory  # noqa: PLC0415

    parent = Directory(str(path.parent))
    found = parent.open_pin(path.name, parent.stat(path.name).st_ino)
    assert isinstance(found, Map)
    return found
