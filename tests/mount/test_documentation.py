"""The documentation tells the truth: its commands are run, and print what it shows.

`support/documentation.py` has how pages are written.
"""

from __future__ import annotations

import contextlib
import re
import sys
from pathlib import Path

import pytest
from support.documentation import (
    ROOT,
    Block,
    Command,
    blocks,
    commands,
    difference,
    outside_of_blocks,
    pages,
    run,
)
from support.shell import checked

from fusefs.bpf.bpffs import Directory
from fusefs.bpf.btf_object import BtfObject
from fusefs.bpf.map import MapType
from fusefs.tree.by_id import IdPlace
from fusefs.tree.context import Context
from fusefs.tree.map_files import FILES
from fusefs.tree.map_types import MAP_TYPES
from fusefs.tree.object_directory import ObjectDirectory
from fusefs.tree.targets import KINDS

# What is in a block, by the language that it is said to be in.
_LANGUAGES = frozenset("console text toml c json jsonl ebnf ini sh systemd yaml".split())
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s#]*)#?([^)\s]*)\)")


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _not_run() -> list[Block]:
    return [block for page in pages() for block in blocks(page) if block.why_not_run is not None]


@pytest.mark.parametrize("page", [page for page in pages() if commands(page)], ids=_name)
def test_commands_print_what_is_shown(page: Path) -> None:
    shown = commands(page)
    printed, log = run(shown)
    differences = [
        found
        for command, lines in zip(shown, printed, strict=False)
        if (found := difference(command, lines))
    ]
    if len(printed) < len(shown):
        command = shown[len(printed)]
        differences.append(f"{command.where}: # {command.text}\nnothing was run from here on")
    if differences:
        pytest.fail("\n\n".join(differences), pytrace=False)
    assert "Traceback" not in log, log


@pytest.mark.parametrize("block", _not_run(), ids=lambda b: f"{b.where} {b.why_not_run}")
def test_what_is_not_run_has_a_reason(block: Block) -> None:
    assert len((block.why_not_run or "").split()) > 1, f"{block.where}: say why"


@pytest.mark.parametrize("page", pages(), ids=_name)
def test_every_block_says_what_it_is(page: Path) -> None:
    unknown = [block.where for block in blocks(page) if block.language not in _LANGUAGES]
    assert not unknown
    odd = [
        block.where
        for block in blocks(page)
        if block.language == "console"
        and block.why_not_run is None
        and block.remark not in ("", "any-order")
    ]
    assert not odd
    # It would not be run.
    indented = [
        f"{_name(page)}:{number}: put it in a block of ```console, or ```console not-run: WHY"
        for number, line in outside_of_blocks(page)
        if re.match(r" {4,}[#$] ", line)
    ]
    assert not indented, "\n".join(indented)


@pytest.mark.parametrize("page", pages(), ids=_name)
def test_links_lead_somewhere(page: Path) -> None:
    found = [link for _number, line in outside_of_blocks(page) for link in _LINK.findall(line)]
    missing = [
        f"{target}#{anchor}"
        for target, anchor in found
        if "://" not in target and not _leads(page.parent / target if target else page, anchor)
    ]
    assert not missing


def _leads(page: Path, anchor: str) -> bool:
    """Whether there is this page, and in it this heading, named as GitHub does."""
    if not anchor:
        return page.exists()
    headings = [line for _number, line in outside_of_blocks(page) if line.startswith("#")]
    words = [re.sub(r"[^\w\- ]", "", line.lstrip("# ").lower()) for line in headings]
    return anchor in [heading.replace(" ", "-") for heading in words]


@pytest.mark.parametrize(
    "shown, printed, alike",
    [
        (["id: 259737"], ["id: 3"], True),
        (["id: 259737"], ["id: none"], False),
        (["22"], ["23"], False),
        (["[22, 22]"], ["[22, 22, 22, 22]"], True),
        (["a  b"], ["a b"], True),
        (["total 4", "-r-------- 1 root root 403 Nov 26 21:23 info"],
         ["total 0", "-r--------  1 root  root    7 Dec  1 00:00 info"], True),
        (["-r-------- 1 root root 403 Nov 26 21:23 info"],
         ["-rw------- 1 root root 403 Nov 26 21:23 info"], False),
        (["a", "…", "d"], ["a", "b", "c", "d"], True),
        (["a", "…"], ["a"], True),
        (["a … d"], ["a b c d"], True),
        (["a"], ["a", "b"], False),
        (["a", "b"], ["a"], False),
        (["bash: echo: write error"], ["bash: line 12: echo: write error"], True),
        (["x -> ../.by-id/maps/25"], ["x -> ../.by-id/maps/1234"], True),
    ],
)  # fmt: skip
def test_the_comparison_itself(shown: list[str], printed: list[str], alike: bool) -> None:
    """It is the measure of all else here."""
    assert (difference(Command("here:1", "it", tuple(shown)), printed) == "") is alike
    mixed = Command("here:1", "it", ("a", "b"), any_order=True)
    assert not difference(mixed, ["b", "a"])
    assert difference(mixed, ["b", "b"])
    assert difference(mixed, ["a"])
    assert difference(mixed, ["a", "b", "b"])


def _files_of_objects(bpffs: Path) -> set[str]:
    """The names of all files that the directories of the samples and of BTF objects have."""
    checked(sys.executable, ROOT / "scripts/demo", bpffs)
    pins = Directory(str(bpffs))
    context = Context(pins, "/mnt/bpf")
    with contextlib.ExitStack() as stack:
        opened = [
            stack.enter_context(pins.open_pin(name, pins.stat(name).st_ino))
            for name in ("variables", "count", "list_maps")
        ]
        btf = stack.enter_context(BtfObject.from_id(next(iter(BtfObject.ids()))))
        places = [IdPlace(context, type(obj), obj.info.id) for obj in [*opened, btf]]
        names = {name for place in places for name in ObjectDirectory(place).files()}
    return names | {name for shape in FILES.values() for name in shape}


def test_the_layout_has_every_file_and_type(bpffs: Path) -> None:
    """What a user can come across is on the page."""
    text = (ROOT / "docs/layout.md").read_text()
    named = {name.removesuffix("/") for name in re.findall(r"`([^`\s]+)`", text)}
    types = {kind.name.lower() for kind in MapType}
    headings = "\n".join(re.findall(r"^### .*", text, re.MULTILINE))
    assert not types - set(re.findall(r"`(\w+)`", headings))
    assert {MapType(number) for number in MAP_TYPES} == set(MapType)
    assert not _files_of_objects(bpffs) - named
    assert set(KINDS) == set(re.findall(r"`\.by-id/([a-z]+)/ID`", text))
