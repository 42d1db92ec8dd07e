"""Tests of which columns are read, and of their types."""

import pytest

from monolith_tf.features import ColumnType
from monolith_tf.features import FeatureSpec
from monolith_tf.features import LabelSpec
from monolith_tf.features import TransformSpec
from monolith_tf.features import required_columns
from monolith_tf.features.columns import id_types

BUCKETS = TransformSpec(name="bucketize", boundaries=(1,))

SCHEMA = {
    "user": ColumnType(dtype="int64"),
    "country": ColumnType(dtype="string"),
    "price": ColumnType(dtype="float32"),
    "history": ColumnType(dtype="int64", is_list=True),
    "vector": ColumnType(dtype="float32", is_list=True),
    "unused": ColumnType(dtype="string"),
}


def columns_of(*uses, schema=SCHEMA, **arguments):
    features = [use for use in uses if isinstance(use, FeatureSpec)]
    labels = [use for use in uses if isinstance(use, LabelSpec)]
    return required_columns(features, labels, schema=schema, **arguments)


def feature(name, kind="id", **arguments):
    return FeatureSpec(name=name, kind=kind, **arguments)


def test_types_are_taken_from_the_files():
    assert columns_of(
        feature("user"),
        feature("from", column="country"),
        feature("history", "id_list"),
        feature("price", "dense", default=0),
        feature("vector", "dense", dim=3),
    ) == {
        "user": ColumnType(dtype="int64"),
        "country": ColumnType(dtype="string"),
        "history": ColumnType(dtype="int64", is_list=True),
        "price": ColumnType(dtype="float32", default=0),
        "vector": ColumnType(dtype="float32", is_list=True, length=3),
    }


def test_declared_types_go_before_those_of_the_files():
    made = columns_of(feature("user", dtype="string"), feature("price", dtype="int"))
    assert made["user"].dtype == "string" and made["price"].dtype == "int64"


def test_one_column_may_have_several_uses():
    made = columns_of(
        feature("price", "dense"),
        feature("price_id", column="price", default=2, transform=BUCKETS),
        LabelSpec(name="price_label", column="price"),
    )
    assert made == {"price": ColumnType(dtype="float32", default=2, choices=(0, 1))}


def test_weights_and_keys_are_read_too():
    made = columns_of(feature("user"), weight="price", keys=["country", "user"])
    assert list(made) == ["user", "price", "country"]
    assert made["price"].choices == (1, 2)


def test_without_a_schema_features_say_what_they_need():
    made = columns_of(
        feature("a"),
        feature("b", "id_list", dtype="string"),
        feature("c", "dense"),
        LabelSpec(name="d"),
        LabelSpec(name="e", equals=["x", "y"]),
        LabelSpec(name="f", equals=[3, 5]),
        schema={},
    )
    assert {name: type_.dtype for name, type_ in made.items()} == {
        "a": "int64",
        "b": "string",
        "c": "float32",
        "d": "float32",
        "e": "string",
        "f": "float32",
    }
    assert made["d"].choices == (0, 1)
    assert made["e"].choices == ("x", "y", "")
    assert made["f"].choices == (3, 5, 6)


@pytest.mark.parametrize(
    ("use", "text"),
    [
        (feature("usr"), r"no column `usr` for feature `usr`\. Did you mean `user`\?"),
        (LabelSpec(name="zzz"), r"for label `zzz`\. The data has: `user`, `country`"),
        (feature("price"), "needs integers or strings. .*`price` of floats. Add a"),
        (feature("country", "dense"), "needs numbers. .*`country` of strings"),
        (feature("country", transform=BUCKETS), "needs numbers. .*`country` of str"),
        (feature("user", default="x"), "must have its column's type, int64. .*'x'"),
        (feature("country", default=3), "must have its column's type, string. .*3"),
        (LabelSpec(name="country"), "`country` of strings. Set `equals` to the string"),
        (
            LabelSpec(name="user", equals="x"),
            "`equals` of label `user` holds strings. .* Set `equals` to numbers",
        ),
    ],
)
def test_errors(use, text):
    with pytest.raises(ValueError, match=text):
        columns_of(use)


@pytest.mark.parametrize(
    "other",
    [
        feature("b", column="user", dtype="string"),
        feature("b", "id_list", column="user"),
        feature("b", column="user", default=2),
    ],
)
def test_uses_that_disagree(other):
    with pytest.raises(
        ValueError, match=r"`user` is used by feature `a` as .* by feat"
    ):
        columns_of(feature("a", column="user", default=1), other)


def test_weights_must_be_numbers():
    with pytest.raises(ValueError, match=r"weights must be numbers.*`country` of str"):
        columns_of(feature("user"), weight="country")
    with pytest.raises(ValueError, match=r"no column `wight` for the weights"):
        columns_of(feature("user"), weight="wight")


def test_lists_in_cells_of_text_take_the_type_of_their_elements():
    cells = {"cells": ColumnType(dtype="string", elements="int64")}
    lists = columns_of(feature("cells", "id_list"), schema=cells)
    assert lists == {"cells": ColumnType(dtype="int64", is_list=True)}
    assert columns_of(feature("cells"), schema=cells)["cells"].dtype == "string"
    declared = columns_of(feature("cells", "id_list", dtype="string"), schema=cells)
    assert declared["cells"].dtype == "string"


def test_ids_of_one_table_are_of_one_type():
    of_strings = feature("country", table="t")
    with pytest.raises(
        ValueError,
        match=r"Features `user` and `country` share the table `t`, .* column `user` "
        "holds integers, column `country` strings. .* same `dtype`, int or string",
    ):
        columns_of(feature("user", table="t"), of_strings)
    buckets = feature("price", table="t", transform=BUCKETS)
    with pytest.raises(
        ValueError, match=r"`price` holds integers, .*`country` strings"
    ):
        columns_of(buckets, of_strings)
    columns_of(feature("user", table="t", dtype="string"), of_strings)
    columns_of(feature("user", table="t"), feature("history", "id_list", table="t"))


def test_types_of_ids_by_table():
    features = [feature("user"), feature("country"), feature("price", "dense")]
    found = id_types(features, columns_of(*features))
    assert found == {"user": "int", "country": "string"}
