"""The man page: it says what the command does, and is well formed."""

from __future__ import annotations

import re
from pathlib import Path

from support.shell import ENVIRONMENT, run

import fusefs
from fusefs import cli, options
from fusefs.configuration import DEFAULT_FILE, read_formats
from fusefs.text.formats import FORMATS

PAGE = Path(fusefs.__file__).parent.parent / "docs/bpf-fusefs.8"
SOURCE = PAGE.read_text().replace("\\\n", "")  # long lines as one


def items(macro: str) -> list[str]:
    """The items of its lists that begin with a macro of mdoc(7)."""
    return re.findall(rf"^\.It ({macro} .*)$", SOURCE, re.M)


def test_it_has_every_option() -> None:
    described = ["-" + flag for item in items("Fl") for flag in re.findall(r"Fl (\S+)", item)]
    real = [flag for action in cli._parser()._actions for flag in action.option_strings]
    assert sorted(described) == sorted(real)
    assert f"\n.Pa {cli.DEFAULT_SOURCE}\nunless" in SOURCE


def test_it_has_every_mount_option() -> None:
    choices: dict[str, tuple[str, ...]] = {}
    described: list[str] = []
    for item in items("Cm"):
        if choice := re.fullmatch(r"Cm (\S+) Ns = Ns Cm (.*)", item):
            choices[choice[1]] = tuple(choice[2].split(" | "))
        else:
            described += re.sub(r"^Cm | Ns (= Ns )?Ar \w+", "", item).split(" , ")
    assert choices == options._CHOICES
    real = {option.removesuffix("=") for option in options._FUSE | options._OURS | options._FOREIGN}
    assert sorted([*choices, *described]) == sorted([*real, *options._COMMENTS])


def test_it_has_every_format() -> None:
    listed = re.search(r"^\.Cm (auto , .*) ,$", SOURCE, re.M)
    assert listed
    assert sorted(listed[1].split(" , ")) == sorted(FORMATS)


def test_its_configuration_is_one(tmp_path: Path) -> None:
    example = re.search(r"^# ELF files.*?(?=^\.Ed$)", SOURCE, re.M | re.S)
    assert example
    file = tmp_path / "example.toml"
    file.write_text(re.sub(r'btf = \[".*"\]', "btf = []", example[0]))
    assert [rule.settings for rule in read_formats(str(file)).rules] == [
        {"key": "ipv4"},
        {"value.saddr": "ipv4", "value.ports[]": "be", "percpu": "sum"},
    ]
    assert items("Pa")[0] == f"Pa {DEFAULT_FILE}"


def test_mandoc_has_no_complaint() -> None:
    # Which other manuals are installed here is another matter.
    lines = run(["mandoc", "-T", "lint", PAGE]).stdout.splitlines()
    assert [line for line in lines if "STYLE: referenced manual not found" not in line] == []


def test_man_has_no_complaint() -> None:
    result = run(["man", "--warnings", "-l", PAGE], env={**ENVIRONMENT, "MANWIDTH": "80"})
    assert (result.code, result.stderr) == (0, "")
    assert "bpf-fusefs [source] mountpoint [-df] [-o options]" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
