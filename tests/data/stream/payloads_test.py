"""Tests of decoding messages."""

import json

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from monolith_tf.data.stream.payloads import Messages
from monolith_tf.data.stream.spec import StreamSpec
from monolith_tf.features.columns import ColumnType
from tests.data.stream.decoding import events
from tests.data.stream.decoding import rows

INT = ColumnType(dtype="int64")
FLOAT = ColumnType(dtype="float32")
TEXT = ColumnType(dtype="string")
INTS = ColumnType(dtype="int64", is_list=True)


def spec(payload="json", **more):
    return StreamSpec(brokers="h:1", topic="t", payload=payload, **more)


def texts(*objects):
    return [json.dumps(one).encode() for one in objects]


def test_json_objects_are_rows():
    values = texts(
        {"id": 7, "price": 1.5, "name": "ä", "list": [1, 2], "more": {"x": 1}},
        {"id": -(2**63), "price": 2, "name": "", "list": []},
        {"id": 2**63 - 1, "price": 1e30, "name": "0", "list": [5]},
    )
    columns = {"id": INT, "price": FLOAT, "name": TEXT, "list": INTS}
    good, bad = rows(Messages(spec()), events(values), columns)
    assert bad == {}
    assert good == [
        (100, 7, 1.5, "ä".encode(), [1, 2]),
        (101, -(2**63), 2.0, b"", []),
        (102, 2**63 - 1, float(np.float32(1e30)), b"0", [5]),
    ]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'{"id": NaN, "list": []}', "not JSON"),
        (b'{"id": "\xff", "list": []}', "not JSON"),
        (b"[1]", "not a JSON object, but"),
        (b'{"list": []}', "no value in column `id`"),
        (b'{"id": null, "list": []}', "no value in column `id`"),
        (b'{"id": "7", "list": []}', "`id`: '7' is not an integer"),
        (b'{"id": 7.5, "list": []}', "`id`: 7.5 is not an integer"),
        (b'{"id": 7.0, "list": []}', "`id`: 7.0 is not an integer"),
        (b'{"id": true, "list": []}', "`id`: True is not an integer"),
        (b'{"id": 9223372036854775808, "list": []}', "is not an integer"),
        (b'{"id": 99999999999999999999, "list": []}', "is not an integer"),
        (b'{"id": [7], "list": []}', r"`id`: [7] is not an integer"),
        (b'{"id": 7, "list": 5}', "`list`: 5 is not a list of integers"),
        (b'{"id": 7, "list": [1, "2"]}', "`list`: [1, '2'] is not a list of integers"),
        (b'{"id": 7, "list": [1, null]}', "an element of column `list` is missing"),
        (None, "the message has no value"),
    ],
)
def test_a_bad_message_is_one_bad_row(value, reason):
    fine = texts({"id": 1, "list": [2]})
    given = events([*fine, value, *fine])
    good, bad = rows(Messages(spec()), given, {"id": INT, "list": INTS})
    assert good == [(100, 1, [2]), (102, 1, [2])]
    assert list(bad) == [101]
    assert reason in bad[101]


def test_truth_values_are_numbers_where_the_column_holds_them():
    values = texts({"a": True, "b": 1}, {"a": False, "b": 0}, {"a": 1, "b": True})
    messages = Messages(spec())
    schema = messages.schema([events(values[:2])])
    assert (schema["a"].kind, schema["b"].kind) == ("bool", "number")
    truth = ColumnType(dtype="int64", kind="bool")
    good, bad = rows(messages, events(values), {"a": truth})
    assert good == [(100, 1), (101, 0)]
    assert "1 is not true or false" in bad[102]
    label = ColumnType(dtype="float32", kind="amount")
    good, bad = rows(messages, events(values), {"a": label, "b": label})
    assert [row[1:] for row in good] == [(1, 1), (0, 0), (1, 1)]


def test_types_are_those_of_the_first_messages():
    values = texts(
        {"i": 1, "f": 1, "s": "x", "l": [], "n": None, "o": {}},
        {"i": 2, "f": 2.5, "s": "y", "l": ["a"], "n": None},
    )
    found = Messages(spec()).schema([events([*values, b"{", None])])
    assert {k: (v.dtype, v.is_list, v.is_readable) for k, v in found.items()} == {
        "i": ("int64", False, True),
        "f": ("float32", False, True),
        "s": ("string", False, True),
        "l": ("string", True, True),
        "o": ("string", False, False),
    }
    assert Messages(spec()).schema([events([])]) == {}


def example(**features):
    kinds = {bytes: "bytes_list", float: "float_list", int: "int64_list"}
    message = tf.train.Example()
    for name, values in features.items():
        one = message.features.feature[name]
        getattr(one, kinds[type(values[0])]).value.extend(values)
    return message.SerializeToString()


def test_tf_examples_are_rows():
    values = [
        example(id=[7], list=[1, 2]),
        b"no example",
        example(id=[8, 9], list=[1]),
        example(id=[2**62]),
    ]
    messages = Messages(spec("tf_example"))
    assert messages.schema([events(values)])["list"].is_list
    good, bad = rows(messages, events(values), {"id": INT, "list": INTS})
    assert good == [(100, 7, [1, 2]), (103, 2**62, [])]
    assert "not a tf.Example" in bad[101]
    assert "has 2 values" in bad[102]


def stream_of(table):
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def test_arrow_messages_hold_many_rows():
    values = [
        stream_of(pa.table({"id": [1, 2, 3], "x": [0.5, None, 2.5]})),
        stream_of(pa.table({"id": pa.array([4], pa.int32()), "x": [1.5]})),
        b"no stream",
        stream_of(pa.table({"id": [5]})),
        stream_of(pa.table({"id": [6, 7], "x": [6.5, 7.5]})),
    ]
    messages = Messages(spec("arrow"))
    assert messages.schema([events(values)])["x"].dtype == "float32"
    good, bad = rows(messages, events(values), {"id": INT, "x": FLOAT})
    assert good == [
        (100, 1, 0.5),
        (100, 3, 2.5),
        (101, 4, 1.5),
        (104, 6, 6.5),
        (104, 7, 7.5),
    ]
    assert "no value in column `x`" in bad[100]
    assert "not an Arrow IPC stream" in bad[102]
    assert "no column `x`" in bad[103]


def test_keys_times_and_headers_become_columns():
    given = events(
        texts({"id": 1}, {"id": "bad"}, {"id": 3}),
        times=[1000, 2000, -1],
        keys=[b"k1", b"k2", None],
        headers=[[("h", b"a"), ("h", b"b")], [], [("g", b"c")]],
    )
    messages = Messages(
        spec(key_column="key", timestamp_column="time", header_columns={"h": "head"})
    )
    empty = ColumnType(dtype="string", default="none")
    time = ColumnType(dtype="int64", default=0)
    schema = messages.schema([given])
    assert [schema[n].dtype for n in ("key", "time", "head")] == [
        "string",
        "int64",
        "string",
    ]
    columns = {"head": empty, "id": INT, "time": time, "key": empty}
    good, bad = rows(messages, given, columns)
    assert good == [(100, b"b", 1, 1000, b"k1"), (102, b"none", 3, 0, b"none")]
    assert list(bad) == [101]


def test_a_column_may_not_come_from_two_places():
    messages = Messages(spec(key_column="id"))
    with pytest.raises(
        ValueError, match="column `id` of a key, time or header is also"
    ):
        messages.schema([events(texts({"id": 1}))])
