"""Who stands in a directory goes along with it, and sees what takes the place of a pin."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest
from support.maps import make_map, u32, u64
from support.mounting import Mount
from support.renaming import rename
from support.standing import Shell, standing
from support.waiting import eventually

from fusefs.bpf.bpffs import RenameFlags
from fusefs.bpf.map import Map

# For so long the kernel may know names without asking; what is right, is so before and after.
LAG = 0.05


def numbered(number: int) -> Map:
    """A map with one entry, whose key and value are `number`."""
    made = make_map()
    made.update(u32(number), u64(number))
    return made


def all_the_time(check: Callable[[], object]) -> None:
    """Check at once, again and again, and when the kernel must have asked anew."""
    end = time.monotonic() + 2 * LAG
    while time.monotonic() < end:
        check()
    check()


def sees(shell: Shell, where: str, number: int) -> None:
    """The shell, which stands in the pin or its entries, has the map of this number there."""
    if where == "entries":
        assert shell("ls") == f"{number}\n"
        assert shell(f"cat {number} ../count; cat < ./{number}") == f"{number}\n1\n{number}\n"
        assert shell("ls -d ../info") == "../info\n"
    else:
        assert "entries\n" in shell("ls -la")
        assert shell("ls entries") == f"{number}\n"
        assert shell(f"cat entries/{number}; cat count") == f"{number}\n1\n"
        # (The shell's own `cd` would go by the path that it remembers.)
        assert shell(f"env -C entries cat {number}") == f"{number}\n"
    assert shell("stat -c %F .") == "directory\n"


each_place = pytest.mark.parametrize("where", [".", "entries"])


@each_place
@pytest.mark.parametrize("to", ["moved", "directory/moved", "other/deep/sample"])
def test_a_pin_is_renamed_through_the_mount(mounted: Mount, where: str, to: str) -> None:
    mounted.pin("sample", numbered(5))
    assert mounted.sh("mkdir -p directory other/deep").code == 0
    with standing(mounted.path / "sample" / where) as shell:
        sees(shell, where, 5)
        assert mounted.sh(f"mv sample {to}").code == 0
        all_the_time(lambda: sees(shell, where, 5))
        assert mounted.sh(f"cat {to}/entries/5; ls {to}/entries").stdout == "5\n5\n"
        assert not (mounted.path / "sample").exists()
        entries = "." if where == "entries" else "entries"
        assert shell(f"echo 7 > {entries}/5; echo 8 > {entries}/6; rm {entries}/6") == ""
        assert mounted.sh(f"cat {to}/entries/5").stdout == "7\n"


@each_place
def test_a_pin_is_renamed_again_and_again(mounted: Mount, where: str) -> None:
    mounted.pin("sample", numbered(5))
    with standing(mounted.path / "sample" / where) as shell:
        for number in range(10):
            os.rename(mounted.path / f"sample{number or ''}", mounted.path / f"sample{number + 1}")
            sees(shell, where, 5)
        # The shell itself can do so, too.
        up = "../.." if where == "entries" else ".."
        assert shell(f"mv {up}/sample10 {up}/last") == ""
        all_the_time(lambda: sees(shell, where, 5))


@pytest.mark.parametrize("where", ["", "below", "below/sample", "below/sample/entries"])
def test_a_directory_is_renamed_through_the_mount(mounted: Mount, where: str) -> None:
    os.makedirs(mounted.source / "directory/below")
    os.mkdir(mounted.source / "other")
    mounted.pin("directory/below/sample", numbered(5))
    relative = os.path.relpath("below/sample/entries/5", where or ".")

    def check() -> None:
        assert shell(f"cat {relative}; cat < ./{relative}") == "5\n5\n"
        assert relative.split("/")[0] in shell("ls").split()
        assert shell(f"ls $(dirname {relative})") == "5\n"

    with standing(mounted.path / "directory" / where) as shell:
        check()
        for old, new in (("directory", "renamed"), ("renamed", "other/directory")):
            assert mounted.sh(f"mv {old} {new}").code == 0
            all_the_time(check)
            assert mounted.sh(f"cat {new}/below/sample/entries/5").stdout == "5\n"
            assert not (mounted.path / old).exists()
        assert shell(f"echo 7 > {relative}; cat {relative}") == "7\n"
        assert mounted.sh("cd other/directory/below && mv sample moved").code == 0
        relative = relative.replace("sample", "moved")
        assert shell(f"cat {relative}") == "7\n"


@each_place
@pytest.mark.parametrize("second", ["b", "directory/b"])
def test_each_goes_along_when_two_pins_are_exchanged(
    mounted: Mount, where: str, second: str
) -> None:
    os.mkdir(mounted.source / "directory")
    mounted.pin("a", numbered(1))
    mounted.pin(second, numbered(2))
    a, b = mounted.path / "a", mounted.path / second
    with ExitStack() as stack:
        first, other = (stack.enter_context(standing(path / where)) for path in (a, b))

        def check() -> None:
            sees(first, where, 1)
            sees(other, where, 2)

        check()
        for turn in range(5):
            rename(a, b, RenameFlags.EXCHANGE)
            check()
            assert (b / "entries" / str(1 + turn % 2)).read_text() == f"{1 + turn % 2}\n"
            assert os.listdir(a / "entries") == [str(2 - turn % 2)]
        all_the_time(check)


def test_a_pin_and_a_directory_are_exchanged(mounted: Mount) -> None:
    os.mkdir(mounted.source / "directory")
    mounted.pin("directory/inside", numbered(2))
    mounted.pin("sample", numbered(1))
    with (
        standing(mounted.path / "sample/entries") as in_pin,
        standing(mounted.path / "directory") as in_directory,
    ):
        rename(mounted.path / "sample", mounted.path / "directory", RenameFlags.EXCHANGE)
        all_the_time(lambda: sees(in_pin, "entries", 1))
        all_the_time(lambda: in_directory("cat inside/entries/2"))
        assert (mounted.path / "directory/entries/1").read_text() == "1\n"
        assert os.listdir(mounted.path / "sample") == ["inside"]


@each_place
def test_another_map_takes_the_place_of_a_pin(mounted: Mount, where: str) -> None:
    mounted.pin("sample", numbered(1))
    with standing(mounted.path / "sample" / where) as shell:
        for number in range(1, 5):
            sees(shell, where, number)
            os.unlink(mounted.source / "sample")
            mounted.pin("sample", numbered(number + 1))
            sees(shell, where, number + 1)
            all_the_time(functools.partial(sees, shell, where, number + 1))
            entries = "." if where == "entries" else "entries"
            said, code = shell.run(f"cat {entries}/{number}")
            assert (said.endswith("No such file or directory\n"), code) == (True, 1)


@each_place
def test_another_map_takes_the_place_of_a_pin_that_was_renamed(mounted: Mount, where: str) -> None:
    mounted.pin("sample", numbered(1))
    with standing(mounted.path / "sample" / where) as shell:
        assert mounted.sh("mv sample moved").code == 0
        mounted.pin("sample", numbered(2))
        all_the_time(lambda: sees(shell, where, 1))
        assert mounted.sh("cat sample/entries/2 moved/entries/1").stdout == "2\n1\n"
        os.unlink(mounted.source / "moved")
        mounted.pin("moved", numbered(3))
        all_the_time(lambda: sees(shell, where, 3))


@each_place
def test_a_pin_that_is_gone_is_an_error_and_no_more(mounted: Mount, where: str) -> None:
    mounted.pin("sample", numbered(1))
    with standing(mounted.path / "sample" / where) as shell:
        os.unlink(mounted.source / "sample")
        for command in ("ls", "cat 1", "cat entries/1", "echo 5 > entries/1", "echo 5 > 1"):
            said, code = shell.run(command)
            assert code, command
            assert said.endswith(("No such file or directory\n", "Stale file handle\n")), said
        mounted.pin("sample", numbered(2))
        eventually("the place is found again", lambda: shell.run("ls")[1] == 0, 1)
        all_the_time(lambda: sees(shell, where, 2))


def test_a_pin_comes_back_that_was_removed_while_it_was_used(mounted: Mount) -> None:
    mounted.pin("sample", numbered(1))
    with (mounted.path / "sample/entries/1").open():
        (mounted.path / "sample").rmdir()
        mounted.pin("sample", numbered(2))
        assert "entries" in os.listdir(mounted.path / "sample")
        assert (mounted.path / "sample/entries/2").read_text() == "2\n"
