"""Tests of labels and weights."""

import pytest
import tensorflow as tf

from monolith_tf.features import LabelSpec
from monolith_tf.features import encode_labels
from monolith_tf.features import encode_weights
from monolith_tf.features.strings import string_codes

COLUMNS = {
    "click": tf.constant([0, 1, 3], tf.int64),
    "score": tf.constant([0.1, 1.0, 2.5], tf.float32),
    "income": tf.constant([" 50000+.", "- 50000.", "50000+. "]),
}


def label(**arguments):
    made = encode_labels([LabelSpec(name="x", **arguments)], COLUMNS)["x"]
    assert made.dtype == tf.float32
    return made.numpy().tolist()


def test_numbers_are_labels_as_they_are():
    assert label(column="click") == [0, 1, 3]
    assert label(column="score") == pytest.approx([0.1, 1.0, 2.5])


def test_strings_are_compared_without_the_spaces_around_them():
    assert label(column="income", equals="50000+.") == [1, 0, 1]
    assert label(column="income", equals=" - 50000.") == [0, 1, 0]
    assert label(column="income", equals=["- 50000.", "50000+."]) == [1, 1, 1]


def test_strings_may_come_as_codes():
    words = tf.constant(["- 50000.", "50000+. "])
    columns = {"income": string_codes(tf.constant([1, 0, 1]), words)}
    spec = LabelSpec(name="x", column="income", equals="50000+.")
    assert encode_labels([spec], columns)["x"].numpy().tolist() == [1, 0, 1]


def test_numbers_are_compared_in_the_type_of_the_column():
    assert label(column="click", equals=[1, 3]) == [0, 1, 1]
    assert label(column="click", equals=0) == [1, 0, 0]
    assert label(column="click", equals=1.5) == [0, 0, 0]
    assert label(column="click", equals=3.0) == [0, 0, 1]
    assert label(column="score", equals=0.1) == [1, 0, 0]


def test_labels_come_in_config_order():
    labels = [LabelSpec(name="b", column="click"), LabelSpec(name="click")]
    assert list(encode_labels(labels, COLUMNS)) == ["b", "click"]


def test_weights():
    weights = encode_weights("click", COLUMNS)
    assert weights.dtype == tf.float32 and weights.numpy().tolist() == [0, 1, 3]


def test_missing_columns():
    with pytest.raises(ValueError, match=r"Label `a` needs the column `b`\. Rec"):
        encode_labels([LabelSpec(name="a", column="b")], COLUMNS)
    with pytest.raises(ValueError, match=r"The weights need the column `w`\. Rec"):
        encode_weights("w", COLUMNS)
