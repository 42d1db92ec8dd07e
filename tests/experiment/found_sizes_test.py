import dataclasses

import pytest

from monolith_tf import config as config_lib
from monolith_tf.experiment import found_sizes

_CONFIG = """\
model_dir: runs/a
data: {format: synthetic, batch_size: 8}
features:
  - {name: user, kind: id}
  - {name: item, kind: id, table: thing}
  - {name: seller, kind: id, table: shop}
  - {name: buyer, kind: id, table: shop}
  - {name: price, kind: dense}
  - {name: place, kind: id}
labels: [click]
default_table: {dim: 8, l2: 0.5}
tables:
  - {name: thing, dim: 4, optimizer: {name: sgd, learning_rate: 0.1}}
  - {name: shop, dim: 6}
model:
  groups: {ids: [user, item], all_ids: [user, place]}
  blocks:
    - name: search
      layer: SimpleNasLayer
      inputs: [ids, seller, buyer]
      args: {segment_names: [a, b, c, d], segment_sizes: [8, 4, 6, 6]}
    - name: tower
      layer: MLP
      inputs: [search, price, place]
      args: {output_dims: [1]}
  heads: [{label: click, inputs: tower}]
"""


def _config(*overrides):
    return config_lib.parse_config(_CONFIG, overrides=overrides)


def _found(a, b, c, d):
    widths = {"a": 8, "b": 4, "c": 6, "d": 6}
    kept = {"a": a, "b": b, "c": c, "d": d}
    return {
        "search": {n: {"kept": kept[n], "width": widths[n]} for n in widths},
    }


def _plain(config):
    """Returns `config` after it was written and read again."""
    return config_lib.parse_config(config_lib.dump_config(config))


def test_tables_get_the_sizes_and_the_search_becomes_a_join():
    config = _config("trainer.warm_start=[runs/b]")
    new = _plain(found_sizes.with_found_sizes(config, _found(3, 1, 2, 2)))
    tables = {table.name: table for table in new.tables}
    assert {name: table.dim for name, table in tables.items()} == {
        "user": 3, "thing": 1, "shop": 2,
    }  # fmt: skip
    assert tables["user"].l2 == 0.5
    assert tables["thing"].optimizer == config.tables[0].optimizer
    # The table of a feature that was not searched is unchanged.
    assert new.default_table == config.default_table
    search, tower = new.model.blocks
    assert search.layer is None
    assert search.inputs == ("user", "item", "seller", "buyer")
    assert tower == config.model.blocks[1]
    assert new.features == config.features
    assert new.model_dir == "runs/a_found"
    assert new.trainer == _config().trainer


def test_features_of_which_nothing_is_kept_are_left_out():
    config = _config("model.groups.all_ids=[user]")
    new = _plain(found_sizes.with_found_sizes(config, _found(0, 1, 0, 0)))
    assert [f.name for f in new.features] == ["item", "price", "place"]
    assert [(table.name, table.dim) for table in new.tables] == [("thing", 1)]
    assert new.model.groups == {"ids": ("item",)}
    assert new.model.blocks[0].inputs == ("item",)


@pytest.mark.parametrize(
    ("found", "overrides", "message"),
    [
        (_found(0, 0, 0, 0), (), "`search` keeps no column of any feature. Lower"),
        (_found(1, 1, 2, 3), (), r"\['seller', 'buyer'\] share the table `shop`"),
        (
            {"gate": {"a": {"kept": 1, "width": 8}}},
            (),
            r"must be a block of `model.blocks`. Received: the layers \['gate'\]",
        ),
        (
            {"search": {"a": {"kept": 1, "width": 8}}},
            (),
            r"Received: segments of widths \[8\] for the inputs \['user', 'item', ",
        ),
        (
            _found(1, 1, 2, 2),
            ("model.blocks[1].inputs=[search,user]",),
            "The feature `user` is used outside the search",
        ),
    ],
)
def test_what_cannot_be_written_back(found, overrides, message):
    with pytest.raises(ValueError, match=message):
        found_sizes.with_found_sizes(_config(*overrides), found)


def test_a_table_shared_with_a_feature_outside_the_search():
    config = _config()
    features = [
        dataclasses.replace(f, table="thing") if f.name == "place" else f
        for f in config.features
    ]
    config = dataclasses.replace(config, features=tuple(features))
    with pytest.raises(ValueError, match=r"\['item', 'place'\] share the table"):
        found_sizes.with_found_sizes(config, _found(1, 1, 2, 2))
