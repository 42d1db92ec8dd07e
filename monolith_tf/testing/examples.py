"""Rows as `tf.Example`s, and files of them."""

import pathlib
from collections.abc import Iterable
from collections.abc import Mapping

import tensorflow as tf


def example(row: Mapping[str, object]) -> tf.train.Example:
    """Returns an example of a row: feature -> a value, or a list of values.

    Values are integers, strings, bytes, or numbers of which one is a float. A feature
    that is None is left out; an empty list is one of integers.
    """
    features = {}
    for name, value in row.items():
        values = value if isinstance(value, list) else [value]
        if value is None:
            continue
        if any(isinstance(one, str | bytes) for one in values):
            texts = [one.encode() if isinstance(one, str) else one for one in values]
            feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=texts))
        elif any(isinstance(one, float) for one in values):
            feature = tf.train.Feature(float_list=tf.train.FloatList(value=values))
        else:
            feature = tf.train.Feature(int64_list=tf.train.Int64List(value=values))
        features[name] = feature
    return tf.train.Example(features=tf.train.Features(feature=features))


def write(
    path: pathlib.Path, rows: Iterable[Mapping[str, object]], compression: str = ""
) -> None:
    """Writes a TFRecord file with an example for each row."""
    with tf.io.TFRecordWriter(str(path), compression) as writer:
        for row in rows:
            writer.write(example(row).SerializeToString())
