import dataclasses
import pathlib

import pytest

from monolith_tf import config as config_lib
from monolith_tf.cli import placement
from monolith_tf.config import schema
from monolith_tf.embedding.lookup import layout
from monolith_tf.embedding.shard import expiry

DATA = pathlib.Path(__file__).parents[1] / "config" / "testdata"


def test_placements():
    config = config_lib.load_config(
        DATA / "dcn.yaml", ["tables[0].max_rows=1000"], data="ignored"
    )
    user, item = placement.placements(config)
    assert user == placement.TablePlacement(
        table="user",
        slot=None,
        dim=16,
        features=("user_id",),
        row_bytes=179,
        max_bytes=179_000,
        device="ps 0 to 1, by hash of the id",
    )
    assert item.slot == 3
    assert item.features == ("history", "item_id")
    assert item.row_bytes == 4 * 48 + 51
    assert item.max_bytes is None


def test_a_limit_in_bytes_leaves_the_index_out():
    config = config_lib.load_config(
        DATA / "dcn.yaml",
        ["tables[0].max_rows=1000", "tables[0].max_bytes=1280", "cluster="],
        data="ignored",
    )
    user, _ = placement.placements(config)
    assert user.max_bytes == 10 * 179
    assert user.device == "this process, CPU"


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("export.spare_rows=10",),
        ("tables[0].max_bytes=2000000", "tables[0].when_full=evict_oldest"),
        # The other table has the same layout then, and so the same stamps.
        ("tables[1].optimizer={name: adagrad}", "tables[0].expire_after_days=3"),
    ],
)
def test_what_is_printed_is_what_the_store_takes(overrides):
    config = config_lib.load_config(
        DATA / "dcn.yaml", ["cluster=", *overrides], data="ignored"
    )
    specs = [
        dataclasses.replace(table, slot=slot)
        for slot, table in enumerate(schema.resolved_tables(config))
    ]
    groups = layout.merge_tables(specs, tracks_updates=config.export.spare_rows > 0)
    of_table = {t.name: group for group in groups for t in group.tables}
    for spec, place in zip(specs, placement.placements(config), strict=True):
        group = of_table[spec.name]
        assert place.row_bytes == group.bytes_per_id
        if spec.max_bytes is not None:
            most = place.max_bytes // place.row_bytes
            assert expiry.check_limit(spec, most) == 0
            assert expiry.check_limit(spec, most + 1) == 1
