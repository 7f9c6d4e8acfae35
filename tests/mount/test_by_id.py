"""`.by-id/`: objects by their ids, pinned or not, for root."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support.maps import exists, make_map, u32, u64
from support.mounting import Mount
from support.network import compile_program, network, pin_attached
from support.shell import checked
from support.users import DENIED, nobody
from support.waiting import eventually

from fusefs.bpf.link import Link
from fusefs.bpf.map import Map
from fusefs.bpf.program import Program


def test_a_map_that_is_pinned_nowhere(mounted: Mount) -> None:
    with make_map() as made:
        made.update(u32(1), u64(101))
        path = mounted.path / f".by-id/maps/{made.info.id}"
        assert (path / "entries/1").read_text() == "101\n"
        (path / "entries/2").write_text("7\n")
        assert made.lookup(u32(2)) == u64(7)
        (path / "format").write_text("value: hex\n")
        assert (path / "entries/2").read_text() == '"0x7"\n'
        assert json.loads((path / "info.json").read_text())["id"] == made.info.id
        assert (
            mounted.sh(f"cd {path}; ls; stat -c '%A %U' . info").stdout
            == mounted.sh(
                "printf 'count\\nentries\\nentries.jsonl\\nerror_log\\nformat\\nfrozen\\ngraph.dot\\n"
                "info\\ninfo.json\\npin\\ntypes.h\\ndrwx------ root\\n-r-------- root\\n'"
            ).stdout
        )


def test_it_goes_with_the_object(mounted: Mount) -> None:
    with make_map() as made:
        map_id = made.info.id
        path = mounted.path / f".by-id/maps/{map_id}"
        (path / "info").read_text()
        assert str(map_id) in os.listdir(path.parent)
    eventually("the map is gone", lambda: not exists(Map, map_id), 1)
    for name in ("info", "entries"):
        with pytest.raises(FileNotFoundError):
            os.open(path / name, os.O_RDONLY)
    eventually("its directory is gone", lambda: not path.exists(), 1)
    assert str(map_id) not in os.listdir(path.parent)


def test_it_is_reached_and_not_listed(mounted: Mount) -> None:
    assert ".by-id" not in os.listdir(mounted.path)
    assert mounted.sh("ls .by-id").stdout == "btfs\ngraph.dot\ngraph.svg\nlinks\nmaps\nprograms\n"
    assert (
        mounted.sh("stat -c '%A %U:%G' .by-id .by-id/maps").stdout == "dr-x------ root:root\n" * 2
    )
    assert ".by-id" not in mounted.sh("find .").stdout


def test_names_that_are_no_ids(mounted: Mount) -> None:
    with make_map() as made:
        wrong = ["0", "x", f"0{made.info.id}", f"+{made.info.id}", "4294967295", "99999999999", "²"]
        for name in wrong:
            for kind in ("maps", "programs", "links"):
                with pytest.raises(FileNotFoundError):
                    (mounted.path / ".by-id" / kind / name).stat()
    with pytest.raises(FileNotFoundError):
        (mounted.path / ".by-id/apples").stat()


@pytest.mark.parametrize(
    "command",
    ["mkdir .by-id/x", "touch .by-id/x", "rmdir .by-id", "mv .by-id x", "ln -s a .by-id/maps/9",
     "rmdir .by-id/maps", "mkdir .by-id", "rmdir .by-id/maps/ID", "chmod 755 .by-id"],
)  # fmt: skip
def test_nothing_is_made_or_removed_there(mounted: Mount, command: str) -> None:
    with make_map() as made:
        result = mounted.sh(command.replace("ID", str(made.info.id)))
        assert result.code == 1
        assert result.stderr.endswith(
            ("Operation not permitted\n", "File exists\n", "Directory not empty\n")
        )


def test_it_is_roots(mounter: Callable[..., Mount]) -> None:
    mount = mounter("-o", "allow_other")
    mount.sh("chmod 777 .")
    with make_map() as made:
        for command in ("ls .by-id", f"cat .by-id/maps/{made.info.id}/info", "cd .by-id/maps"):
            assert nobody(mount, command).stderr.endswith(DENIED), command


def test_programs_and_links(mounted: Mount, tmp_path: Path) -> None:
    compiled = compile_program("xdp_count", tmp_path)
    checked("bpftool", "prog", "load", compiled, mounted.source / "program")
    with network() as net:
        pin_attached(net, mounted.source / "program", mounted.source / "link")
        link = json.loads(mounted.sh("cat link/info.json").stdout)
        program = json.loads(mounted.sh("cat program/info.json").stdout)
        assert link["prog_id"] == program["id"]
        for directory, said, kind in (("programs", program, Program), ("links", link, Link)):
            path = f".by-id/{directory}/{said['id']}"
            assert json.loads(mounted.sh(f"cat {path}/info.json").stdout) == said
            assert str(said["id"]) in mounted.sh(f"ls .by-id/{directory}").stdout.split()
            assert exists(kind, said["id"])
        mounted.sh("rmdir link program")
        eventually("the link is gone", lambda: not exists(Link, link["id"]), 1)
        assert mounted.sh(f"cat .by-id/links/{link['id']}/info").code == 1
