"""Rows drawn in addition to those of the files."""

import collections
import itertools

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from monolith_tf import data
from monolith_tf.features.columns import ColumnType

INT = ColumnType(dtype="int64")
STRING = ColumnType(dtype="string")
LABEL = ColumnType(dtype="float32")
COLUMNS = {"user": INT, "item": INT, "label": LABEL}

# User u has interacted with the items from u to u + 3; item 99 is in no train row.
TRAIN = [(user, user + place) for user in range(6) for place in range(4)]
EVAL = [(user, (user + 5) % 9) for user in range(6)] + [(5, 99), (77, 0)]
ITEMS = set(range(9))


def write(path, pairs, **more):
    users, items = zip(*pairs, strict=True)
    pq.write_table(pa.table({"user": users, "item": items, **more}), path)
    return str(path)


@pytest.fixture
def open_split(tmp_path):
    def open_(split="train", columns=COLUMNS, seed=3, spec=None, **arguments):
        arguments = {
            "train": write(tmp_path / "train.parquet", TRAIN),
            "eval": write(tmp_path / "eval.parquet", EVAL),
            "batch_size": 5,
            "negatives": data.NegativesSpec(train=2, eval=3),
        } | arguments
        return data.open_split(data.DataSpec(**arguments), split, columns, seed)

    return open_


def rows_of(source, epoch=0, batch=0, **how):
    rows = []
    for window, first in source.windows(epoch, batch, **how):
        found = window.table.to_pylist()
        rows += found[first * 5 :]
    return rows


def test_drawn_rows_follow_their_row_in_the_order_of_the_file(open_split):
    source = open_split(shuffle_buffer=0)
    rows = rows_of(source)
    assert source.num_rows() == len(rows) == 3 * len(TRAIN)
    assert source.batches_per_epoch() == -(-len(rows) // 5)
    for place, pair in enumerate(TRAIN):
        given, *drawn = rows[3 * place : 3 * place + 3]
        assert (given["user"], given["item"]) == pair
        assert given["label"] == 1.0
        for row in drawn:
            assert row["label"] == 0.0
            assert row["user"] == pair[0]
            assert row["item"] in ITEMS
            assert (row["user"], row["item"]) not in TRAIN


def test_shuffling_keeps_every_row(open_split):
    shuffled, plain = open_split(), open_split(shuffle_buffer=0)

    def key(row):
        return tuple(row.values())

    assert rows_of(shuffled) != rows_of(plain)
    assert sorted(rows_of(shuffled), key=key) == sorted(rows_of(plain), key=key)


def test_a_draw_is_a_function_of_seed_and_epoch(open_split):
    def drawn(seed, epoch):
        return rows_of(open_split(seed=seed, shuffle_buffer=0), epoch)

    assert drawn(1, 4) == drawn(1, 4)
    different = [drawn(*key) for key in ((1, 4), (1, 5), (2, 4))]
    for one, other in itertools.combinations(different, 2):
        assert one != other
        assert one[::3] == other[::3]  # The rows of the file.


def test_reading_begins_anywhere(open_split):
    source = open_split(shuffle_buffer=20)
    whole = rows_of(source, 2)
    for batch in range(source.batches_per_epoch()):
        assert rows_of(source, 2, batch) == whole[5 * batch :]


def test_a_row_is_located_by_the_row_it_was_drawn_for(open_split):
    (place,) = open_split(shuffle_buffer=0).locate(0, 1)
    assert (place.first_row, place.last_row, place.num_rows) == (1, 3, 5)


def test_all_other_items_are_drawn_equally_often(open_split):
    negatives = data.NegativesSpec(train=4000)
    source = open_split(shuffle_buffer=0, negatives=negatives)
    counts = collections.Counter(
        row["item"] for row in rows_of(source) if row["user"] == 2 and not row["label"]
    )
    # User 2 has items 2 to 5; 16,000 draws of 5 items, standard deviation 51 each.
    assert set(counts) == {0, 1, 6, 7, 8}
    assert all(abs(count - 3200) < 5 * 51 for count in counts.values())


def test_an_evaluation_draws_what_is_new_to_the_user_the_same_every_time(open_split):
    source = open_split("eval")
    rows = rows_of(source)
    assert rows == rows_of(open_split("eval"))
    assert len(rows) == source.num_rows() == 4 * len(EVAL)
    for place, pair in enumerate(EVAL):
        given, *drawn = rows[4 * place : 4 * place + 4]
        assert (given["user"], given["item"], given["label"]) == (*pair, 1.0)
        for row in drawn:
            assert row["item"] in ITEMS
            assert (row["user"], row["item"]) not in TRAIN + EVAL


def test_a_split_without_drawn_rows_has_its_own_labels(open_split, tmp_path):
    labels = [place % 2 for place in range(len(EVAL))]
    path = write(tmp_path / "test.parquet", EVAL, label=labels)
    rows = rows_of(open_split("test", test=path))
    assert [row["label"] for row in rows] == labels
    assert [(row["user"], row["item"]) for row in rows] == EVAL


def test_held_out_rows_are_drawn_for_too(open_split):
    arguments = {"eval": (), "validation_fraction": 0.3, "shuffle_buffer": 0}
    train = rows_of(open_split(**arguments))
    held_out = rows_of(open_split("eval", **arguments))

    def given(rows):
        return {(row["user"], row["item"]) for row in rows if row["label"]}

    assert given(train) | given(held_out) == set(TRAIN)
    assert not given(train) & given(held_out)
    assert len(held_out) == 4 * len(given(held_out)) > 0
    for row in held_out:
        assert row["label"] or (row["user"], row["item"]) not in TRAIN


def test_strings_and_what_belongs_to_the_item(tmp_path):
    users = [f"u{user}" for user, _ in TRAIN]
    items = [f"i{item}" for _, item in TRAIN]
    brands = [f"b{item % 4}" for _, item in TRAIN]
    path = tmp_path / "train.parquet"
    table = pa.table({"user": users, "item": items, "brand": brands, "hour": users})
    pq.write_table(table, path, row_group_size=7)
    columns = dict.fromkeys(("user", "item", "brand", "hour"), STRING)
    negatives = data.NegativesSpec(train=2, item=("item", "brand"), label="click")
    spec = data.DataSpec(train=str(path), negatives=negatives)
    source = data.open_split(spec, "train", {"click": INT} | columns, seed=1)
    rows = rows_of(source)
    assert len(rows) == 3 * len(TRAIN)
    assert list(rows[0]) == ["click", *columns]
    known = set(zip(users, items, strict=True))
    for row in rows:
        user, item = row["user"].decode(), row["item"].decode()
        assert row["brand"].decode() == f"b{int(item[1:]) % 4}"
        assert row["hour"] == row["user"]
        assert row["click"] == ((user, item) in known)


def test_the_label_need_not_be_read(open_split):
    rows = rows_of(open_split(columns={"user": INT, "item": INT}))
    assert len(rows) == 3 * len(TRAIN)
    assert list(rows[0]) == ["user", "item"]


def test_nothing_is_left_to_draw(open_split, tmp_path):
    path = write(tmp_path / "all.parquet", [(0, 0), (8, 0), (8, 1), (0, 0)])
    with pytest.raises(ValueError, match=r"for the user 8, who has .* all 2 items"):
        rows_of(open_split(train=path))


def test_the_files_have_the_label_already(tmp_path):
    path = write(tmp_path / "train.parquet", TRAIN, label=[1] * len(TRAIN))
    spec = data.DataSpec(train=path, negatives=data.NegativesSpec(train=1))
    with pytest.raises(
        ValueError, match=r"column `label`, which .*parquet already has"
    ):
        data.read_schema(spec)
    assert "label" in data.read_schema(data.DataSpec(train=path))


def test_the_schema_has_the_label(tmp_path):
    path = write(tmp_path / "train.parquet", TRAIN)
    spec = data.DataSpec(train=path, negatives=data.NegativesSpec(train=1, label="x"))
    assert data.read_schema(spec) == {"user": INT, "item": INT, "x": INT}
    data.check_columns(spec, {"user": INT, "x": LABEL})
    with pytest.raises(ValueError, match="no column `y`"):
        data.check_columns(spec, {"user": INT, "y": LABEL})


def test_a_train_split_without_rows(open_split, tmp_path):
    path = tmp_path / "none.parquet"
    pq.write_table(pq.read_table(open_split().files[0]).slice(0, 0), path)
    with pytest.raises(ValueError, match=r"none\.parquet: has no rows"):
        rows_of(open_split("eval", train=str(path)))


def test_the_columns_of_users_and_items_are_read(open_split):
    with pytest.raises(ValueError, match="Received: user, without `item`"):
        open_split(columns={"user": INT})


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"train": -1}, r"must not be negative\. Received: train=-1, eval=0"),
        ({"user": "item"}, r"different columns\. Received: user='item'"),
        ({"item": ()}, r"item=\(\)"),
        ({"item": ("item", "label")}, r"item=\('item', 'label'\)"),
    ],
)
def test_what_the_spec_refuses(arguments, text):
    with pytest.raises(ValueError, match=text):
        data.NegativesSpec(**arguments)


def test_a_function_of_ones_own_draws_itself():
    with pytest.raises(ValueError, match=r"rows of files\. Received: input_fn='m:f'"):
        data.DataSpec(input_fn="m:f", negatives=data.NegativesSpec(train=1))
