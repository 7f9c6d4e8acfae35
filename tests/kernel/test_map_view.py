"""How maps are shown: types that cannot be read, and formats that do not fit."""

from __future__ import annotations

from support.maps import make_map

from fusefs.bpf.btf_build import BtfBuilder
from fusefs.bpf.btf_object import BtfObject
from fusefs.bpf.map import Map, MapType
from fusefs.text.addresses import Ipv4
from fusefs.text.strings import Raw
from fusefs.tree.map_view import MapView


def test_a_value_type_that_is_too_large_leaves_the_key_its_own() -> None:
    types = BtfBuilder()
    u32 = types.integer("__u32", 4)
    address = types.struct("in_addr", 4, [("s_addr", u32, 0)])
    members = [(f"m{number}", u32, 0) for number in range(20_001)]
    value = types.struct("many", 4, members, union=True)
    with (
        BtfObject.load(types.build()) as btf,
        Map.create(
            MapType.HASH, key_size=4, value_size=4, max_entries=1,
            btf=btf, key_type=address, value_type=value,
        ) as made,
    ):  # fmt: skip
        view = MapView(made)
    assert isinstance(view.key, Ipv4)
    assert isinstance(view.value, Raw)
    assert view.btf.key_type == "struct in_addr"
    assert "members" in (view.btf.problem or "")


def test_settings_that_do_not_fit_leave_the_others() -> None:
    with make_map(key="u32", value="config") as made:
        view = MapView(
            made,
            {
                "percpu": "sum",
                "key": "ipv4",
                "value.mode": "hex",
                "value.no": "hex",
                "value": "auto",
            },
        )
    assert view.settings == {"key": "ipv4", "value.mode": "hex"}
    assert view.misfits == {  # nor is there anything to say of `percpu`, which may be set for all
        "value.no": "value.no: struct config has no field 'no'",
    }
