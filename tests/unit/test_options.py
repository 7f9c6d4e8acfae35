"""Mount options."""

from __future__ import annotations

import pytest

from fusefs.options import OptionError, is_listed, split_options

ALWAYS = {"default_permissions", "subtype=bpf-fusefs"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], set()),
        ([""], set()),
        (["ro"], {"ro"}),
        (["ro,allow_other"], {"ro", "allow_other"}),
        (["ro", "allow_other"], {"ro", "allow_other"}),
        (["ro,,nodev,"], {"ro", "nodev"}),
        (["defaults,noauto,user,nofail,_netdev,relatime"], set()),
        (["x-systemd.automount,x-anything=5,comment=some words"], set()),
        (["rw,default_permissions"], {"rw"}),
    ],
)
def test_what_libfuse_gets(given: list[str], expected: set[str]) -> None:
    assert split_options(given, "/sys/fs/bpf")[0] == ALWAYS | expected | {"fsname=/sys/fs/bpf"}


@pytest.mark.parametrize(
    "option",
    ["nonsense", "rodent", "ro=1", "fsname", "max_read=4096", "allow_other=yes", "x", " ro"],
)
def test_unknown_options(option: str) -> None:
    with pytest.raises(OptionError, match=option):
        split_options([f"ro,{option}"], "source")[0]


@pytest.mark.parametrize(
    ("source", "expected"),
    [("a b", "a b"), ("a,b", r"a\,b"), (r"a\b", r"a\\b"), (r"a\,b", r"a\\\,b"), ("", "")],
)
def test_a_source_is_escaped(source: str, expected: str) -> None:
    assert f"fsname={expected}" in split_options([], source)[0]


def test_a_name_that_is_given_counts() -> None:
    assert split_options(["fsname=mine"], "source")[0] == ALWAYS | {"fsname=mine"}


# Our own.


def test_our_own_are_not_given_to_libfuse() -> None:
    options, own = split_options(["ro,by_id=visible", "config=/etc/x"], "source")
    assert options == ALWAYS | {"ro", "fsname=source"}
    assert own == {"by_id": "visible", "config": "/etc/x"}


def test_the_last_one_counts() -> None:
    assert split_options(["by_id=visible,by_id=hidden"], "source")[1] == {"by_id": "hidden"}


def test_one_that_lacks_its_value() -> None:
    with pytest.raises(OptionError, match="by_id"):
        split_options(["by_id"], "source")


@pytest.mark.parametrize(("value", "listed"), [(None, False), ("hidden", False), ("visible", True)])
def test_whether_by_id_is_listed(value: str | None, listed: bool) -> None:
    assert is_listed(value) == listed


@pytest.mark.parametrize("value", ["", "VISIBLE", "1", "yes", "visible "])
def test_by_id_has_no_other_value(value: str) -> None:
    with pytest.raises(OptionError, match=f"not '{value}'"):
        is_listed(value)
