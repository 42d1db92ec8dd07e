"""Tests of encoding: ids, dense features, and the same inside a SavedModel."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from monolith_tf import ids
from monolith_tf.features import FeatureEncoder
from monolith_tf.features import FeatureSpec
from monolith_tf.features import TransformSpec
from monolith_tf.features.columns import ColumnType
from monolith_tf.features.encode import integer_tables
from monolith_tf.features.strings import string_codes
from monolith_tf.padded import Padded

BUCKETS = TransformSpec(name="bucketize", boundaries=(0.0, 10.0))

FEATURES = (
    FeatureSpec(name="user", kind="id"),
    FeatureSpec(name="item", kind="id", table="item"),
    FeatureSpec(name="history", kind="id_list", table="item", max_length=3),
    FeatureSpec(name="country", kind="id", table="place"),
    FeatureSpec(name="visited", kind="id_list", table="place"),
    FeatureSpec(name="price_id", kind="id", column="price", transform=BUCKETS),
    FeatureSpec(name="prices_id", kind="id_list", column="prices", transform=BUCKETS),
    FeatureSpec(name="price", kind="dense", transform=("log1p", "zscore")),
    FeatureSpec(name="vector", kind="dense", dim=2),
    FeatureSpec(name="steps", kind="dense", column="vector", dim=2, transform=BUCKETS),
    FeatureSpec(name="count", kind="dense", column="user", default=3),
)
SLOTS = {"user": 5, "item": 1, "place": 32767, "price_id": 2, "prices_id": 3}
STATISTICS = {"price": {"count": 9, "mean": [0.5], "std": [2.0]}}


@pytest.fixture
def encoder():
    hashing = {"user": "hash", "item": "hash"}
    return FeatureEncoder(
        FEATURES, SLOTS, statistics=STATISTICS, large_integers=hashing
    )


@pytest.fixture
def columns():
    return {
        "user": tf.constant([0, 2**47 + 3, -1], tf.int64),
        "item": tf.constant([7, 8, 9], tf.int64),
        "history": tf.ragged.constant([[7, 9, 7, 8], [], [2**60]], dtype=tf.int64),
        "country": tf.constant(["fr", "", "日本"]),
        "visited": tf.ragged.constant([["fr"], ["de", "fr"], []]),
        "price": tf.constant([-3.0, 0.0, 12.0]),
        "prices": tf.ragged.constant([[1.0, 11.0], [], [-1.0]]),
        "vector": tf.constant([[0.0, 10.0], [-1.0, 1e9], [5.0, 9.999]]),
    }


def id_of(slot, value):
    return (slot << 48) + ids.hash_integer(value)


def test_ids_of_integers(encoder, columns):
    found = encoder.encode(columns).ids
    assert found["user"].numpy().tolist() == [
        id_of(5, 0),
        id_of(5, 2**47 + 3),
        id_of(5, -1),
    ]
    assert found["history"].to_list() == [
        [id_of(1, value) for value in values] for values in ([7, 9, 7, 8], [], [2**60])
    ]


def test_large_integers_have_no_row_are_an_error_or_stand_as_they_are(columns):
    features = [feature for feature in FEATURES if feature.name in ("user", "history")]
    plain = FeatureEncoder(features, SLOTS)
    found = plain.encode(columns).ids
    assert found["user"].numpy().tolist()[:2] == [id_of(5, 0), id_of(5, 2**47 + 3)]
    assert found["user"][2] < 0
    assert found["history"][0].numpy().tolist() == [id_of(1, v) for v in (7, 9, 7, 8)]
    assert found["history"].flat_values[4] < 0
    with pytest.raises(tf.errors.InvalidArgumentError, match="is a large integer"):
        plain.encode(columns, training=True)
    few = {"user": columns["user"][:2], "history": columns["history"][:2]}
    trained = plain.encode(few, training=True).ids
    np.testing.assert_array_equal(trained["user"], found["user"][:2])
    exact = FeatureEncoder(
        features, SLOTS, large_integers={"user": "exact", "item": "hash"}
    )
    found = exact.encode(columns, training=True).ids
    np.testing.assert_array_equal(found["user"], columns["user"])
    assert found["history"].flat_values[4] == id_of(1, 2**60)
    assert [exact.exact_table(name) for name in ("user", "history")] == ["user", None]


def test_ids_of_strings(encoder, columns):
    found = encoder.encode(columns).ids
    hashed = tf.strings.to_hash_bucket_fast(["fr", "", "日本", "de"], 2**48).numpy()
    fr, empty, nippon, de = (32767 * 2**48 + hashed).tolist()
    assert found["country"].numpy().tolist() == [fr, empty, nippon]
    assert found["visited"].to_list() == [[fr], [de, fr], []]


def test_features_of_one_table_have_the_same_ids(encoder, columns):
    found = encoder.encode(columns).ids
    assert found["item"][0] == found["history"][0, 0]
    assert found["item"][2] == found["history"][0, 1]
    assert found["country"][0] == found["visited"][0, 0]
    assert found["user"].numpy()[0] >> 48 == 5


def test_buckets_as_ids(encoder, columns):
    found = encoder.encode(columns).ids
    assert found["price_id"].numpy().tolist() == [id_of(2, b) for b in (0, 1, 2)]
    assert found["prices_id"].to_list() == [
        [id_of(3, 1), id_of(3, 2)],
        [],
        [id_of(3, 0)],
    ]


def test_dense_features(encoder, columns):
    dense = encoder.encode(columns).dense
    prices = np.array([-np.log(4.0), 0.0, np.log(13.0)])
    np.testing.assert_allclose(dense["price"][:, 0], (prices - 0.5) / 2, rtol=1e-6)
    np.testing.assert_array_equal(dense["vector"], columns["vector"])
    np.testing.assert_array_equal(
        dense["steps"],
        [[0, 1, 0, 0, 0, 1], [1, 0, 0, 0, 0, 1], [0, 1, 0, 0, 1, 0]],
    )
    assert dense["count"].dtype == tf.float32
    assert {name: value.shape for name, value in dense.items()} == {
        f.name: (3, f.width) for f in FEATURES if f.kind == "dense"
    }


def test_order_is_that_of_the_config(encoder, columns):
    found = encoder.encode(columns)
    assert list(found.ids) == [f.name for f in FEATURES if f.kind != "dense"]
    assert list(found.dense) == [f.name for f in FEATURES if f.kind == "dense"]


def test_strings_may_come_as_codes(encoder, columns):
    words = tf.constant(["x", "fr", "de", "日本", ""])
    codes = tf.constant([1, 4, 3])
    lists = tf.ragged.constant([[1], [2, 1], []], dtype=tf.int32)
    coded = columns | {
        "country": string_codes(codes, words),
        "visited": string_codes(lists, words),
    }
    expected, found = encoder.encode(columns).ids, encoder.encode(coded).ids
    np.testing.assert_array_equal(found["country"], expected["country"])
    assert found["visited"].to_list() == expected["visited"].to_list()


def test_vectors_may_come_as_ragged_lists(encoder, columns):
    ragged = tf.RaggedTensor.from_tensor(columns["vector"], ragged_rank=1)
    found = encoder.encode(columns | {"vector": ragged})
    np.testing.assert_array_equal(found.dense["vector"], columns["vector"])
    short = tf.ragged.constant([[1.0], [2.0], [3.0]])
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
        encoder.encode(columns | {"vector": short})


def test_integers_are_transformed_before_they_are_rounded():
    times = 1_700_000_000 + np.arange(50)
    steps = {
        "zscore": TransformSpec(name="zscore", mean=1_700_000_020, std=2),
        "clip": TransformSpec(name="clip", min=1_700_000_010, max=1_700_000_012),
        "bucketize": TransformSpec(
            name="bucketize", boundaries=(1_700_000_001, 1_700_000_002)
        ),
    }
    features = [
        FeatureSpec(name="z", column="x", kind="dense", transform=steps["zscore"]),
        FeatureSpec(
            name="c",
            column="x",
            kind="dense",
            transform=(steps["clip"], TransformSpec(name="zscore", mean=0, std=1.7e9)),
        ),
        FeatureSpec(name="b", column="x", kind="id", transform=steps["bucketize"]),
    ]
    encoder = FeatureEncoder(features, {"b": 0})
    columns = {"x": tf.constant(times, tf.int64)}
    found = encoder.encode(columns)
    assert {value.dtype for value in found.dense.values()} == {tf.float32}
    np.testing.assert_array_equal(found.dense["z"][:, 0], (np.arange(50) - 20) / 2)
    np.testing.assert_array_equal(
        found.ids["b"], [id_of(0, min(place, 2)) for place in range(50)]
    )
    assert int(encoder.clipped(columns)["c"]) == 10 + 37


def test_nan_is_a_missing_value():
    feature = FeatureSpec(name="x", kind="dense", default=3, transform="log1p")
    found = FeatureEncoder([feature], {}).encode({"x": [float("nan"), 0.0]})
    np.testing.assert_allclose(found.dense["x"], [[np.log(4.0)], [0.0]], rtol=1e-6)


def test_graph_with_an_unknown_batch_gives_the_same(encoder, columns):
    specs = {
        name: tf.RaggedTensorSpec([None, None], value.dtype, 1)
        if isinstance(value, tf.RaggedTensor)
        else tf.TensorSpec([None, *value.shape[1:]], value.dtype)
        for name, value in columns.items()
    }
    encode = tf.function(encoder.encode, input_signature=[specs])
    eager, graph = encoder.encode(columns), encode(columns)
    assert graph.ids["user"].shape == [3]
    for one, other in zip(
        tf.nest.flatten(eager, expand_composites=True),
        tf.nest.flatten(graph, expand_composites=True),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


def test_an_empty_batch(encoder, columns):
    empty = {name: value[:0] for name, value in columns.items()}
    found = encoder.encode(empty)
    assert found.ids["user"].shape == [0]
    assert found.ids["history"].nrows() == 0
    assert found.dense["steps"].shape == [0, 6]


def test_a_saved_model_in_another_process_encodes_the_same(encoder, columns, tmp_path):
    def flat(**columns):
        columns["history"] = tf.RaggedTensor.from_row_splits(
            columns.pop("history_values"), columns.pop("history_splits")
        )
        columns["visited"] = tf.ragged.constant([["fr"], ["de", "fr"], []])
        columns["prices"] = tf.ragged.constant([[1.0, 11.0], [], [-1.0]])
        found = encoder.encode(columns)
        outputs = {f"dense_{name}": value for name, value in found.dense.items()}
        for name, value in found.ids.items():
            ragged = isinstance(value, tf.RaggedTensor)
            outputs[f"id_{name}"] = value.flat_values if ragged else value
        return outputs

    history = columns["history"]
    given = {name: columns[name] for name in ("user", "item", "country", "price")}
    given |= {"vector": columns["vector"]}
    given |= {"history_values": history.values, "history_splits": history.row_splits}
    module = tf.Module()
    module.encoder = encoder
    module.serve = tf.function(flat)
    specs = {
        name: tf.TensorSpec([None, *value.shape[1:]], value.dtype, name)
        for name, value in given.items()
    }
    signature = module.serve.get_concrete_function(**specs)
    tf.saved_model.save(module, str(tmp_path / "model"), signatures=signature)
    np.savez(
        tmp_path / "given.npz",
        **{
            name: value.numpy().astype("S") if value.dtype == tf.string else value
            for name, value in given.items()
        },
    )
    program = f"""
import sys
sys.modules["monolith_tf"] = None
import numpy as np
import tensorflow as tf
given = dict(np.load("{tmp_path}/given.npz"))
model = tf.saved_model.load("{tmp_path}/model")
found = model.signatures["serving_default"](
    **{{name: tf.constant(value) for name, value in given.items()}})
np.savez("{tmp_path}/found.npz", **{{k: v.numpy() for k, v in found.items()}})
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    expected = flat(**given)
    with np.load(tmp_path / "found.npz") as found:
        assert set(found) == set(expected)
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize(
    ("slots", "statistics", "text"),
    [
        (
            {"item": 1},
            STATISTICS,
            "`slots` must have the table `user` of feature `user`. Received: slots=",
        ),
        (SLOTS | {"item": 2**15}, STATISTICS, r"`slot` must be in \[0, 32768\)"),
        (
            SLOTS,
            {"other": {}},
            r"`statistics` must have mean and std of feature `price`.*\['other'\]",
        ),
    ],
)
def test_errors(slots, statistics, text):
    with pytest.raises(ValueError, match=text):
        FeatureEncoder(FEATURES, slots, statistics=statistics)


def test_a_missing_column(encoder, columns):
    del columns["country"]
    with pytest.raises(ValueError, match=r"`country` needs the column `country`\. Rec"):
        encoder.encode(columns)


def test_values_are_what_ids_are_made_of(encoder, columns):
    integers = {"user", "item"}
    values = encoder.values(columns, integers)
    encoded = encoder.encode(columns).ids
    assert set(values) == set(encoded)
    np.testing.assert_array_equal(values["user"], columns["user"])
    assert values["history"].to_list() == columns["history"].to_list()
    tables = {feature.name: feature.table_name for feature in FEATURES}
    for name, value in values.items():
        ragged = isinstance(value, tf.RaggedTensor)
        flat = value.flat_values if ragged else value
        hashed = ids.from_integers(flat) if tables[name] in integers else flat
        expected = encoded[name].flat_values if ragged else encoded[name]
        found = ids.with_slot(SLOTS[tables[name]], hashed)
        np.testing.assert_array_equal(found, expected)


def test_padded_lists_are_encoded_as_ragged_ones(encoder, columns):
    padded = {
        name: Padded(value.to_tensor(), value.row_lengths())
        if isinstance(value, tf.RaggedTensor)
        else value
        for name, value in columns.items()
    }
    ids_of_padded, expected = (encoder.encode(c).ids for c in (padded, columns))
    for name, value in expected.items():
        found = ids_of_padded[name]
        if isinstance(value, tf.RaggedTensor):
            assert found.to_list() == value.to_list()
        else:
            np.testing.assert_array_equal(found, value)
    values = encoder.values(padded, {"item"})
    expected = encoder.values(columns, {"item"})
    for name in ("history", "visited", "prices_id"):
        assert values[name].to_ragged().to_list() == expected[name].to_list()


def test_tables_that_strings_read_are_not_of_integers():
    columns = {
        "user": ColumnType(dtype="int64"),
        "item": ColumnType(dtype="int64"),
        "name": ColumnType(dtype="string"),
        "price": ColumnType(dtype="float32"),
    }
    features = [
        FeatureSpec(name="user", kind="id"),
        FeatureSpec(name="item", kind="id"),
        FeatureSpec(name="called", kind="id", column="name", table="item"),
        FeatureSpec(name="name", kind="id"),
        FeatureSpec(name="bucket", kind="id", column="price", transform=BUCKETS),
        FeatureSpec(name="price", kind="dense"),
    ]
    assert integer_tables(features, columns) == {"user", "bucket"}
