import pathlib
import typing

import pytest

from monolith_tf import config as config_lib
from monolith_tf.cli import placement
from monolith_tf.embedding import optimizer_spec
from monolith_tf.embedding import spec
from monolith_tf.embedding.lookup import layout
from monolith_tf.embedding.optimizer_spec import RowOptimizerSpec
from monolith_tf.embedding.optimizers import rules as optimizers
from monolith_tf.embedding.shard import sizing

DATA = pathlib.Path(__file__).parents[1] / "config" / "testdata"
_OPTIMIZERS = typing.get_args(typing.get_args(RowOptimizerSpec)[0])


@pytest.mark.parametrize("kind", _OPTIMIZERS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("dim", [1, 7])
def test_state_is_that_of_the_optimizer(kind, dim):
    made = kind()
    assert placement.state_dim(made, dim) == optimizers.state_dim(made, dim)


def test_bytes_of_a_row():
    table = spec.TableSpec(name="a", dim=16)
    # 16 weights and 16 sums of squares, the id beside them, an entry of the index.
    assert placement.row_bytes(table) == 4 * 32 + 8 + 43
    table = spec.TableSpec(
        name="a",
        slices=(spec.SliceSpec(name="b", dim=1), spec.SliceSpec(name="v", dim=4)),
        expire_after_days=3.0,
        when_full="evict_oldest",
    )
    assert placement.row_bytes(table) == 4 * 10 + 8 * 2 + 8 + 43


@pytest.mark.parametrize(
    "values",
    [
        {"dim": 5, "optimizer": optimizer_spec.AdamSpec()},
        {"dim": 5, "expire_after_days": 3.0, "expire_after_steps": 7},
        {"dim": 5, "admit_after": 2, "max_rows": 9, "when_full": "evict_oldest"},
    ],
)
def test_bytes_of_a_row_are_those_that_the_store_counts(values):
    table = spec.TableSpec(name="a", slot=1, **values)
    (group,) = layout.merge_tables([table])
    assert placement.row_bytes(table) == sizing.bytes_per_id(group)


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
