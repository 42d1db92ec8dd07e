"""Tests of messages in Avro."""

import datetime
import decimal
import io
import json
import random

import fastavro
import numpy as np
import pytest

from monolith_tf.data.stream.payloads import Messages
from monolith_tf.data.stream.spec import StreamSpec
from monolith_tf.features.columns import ColumnType
from tests.data.stream.decoding import events
from tests.data.stream.decoding import rows

INT = ColumnType(dtype="int64")
FLOAT = ColumnType(dtype="float32")
TEXT = ColumnType(dtype="string")


def record(*fields, name="Click"):
    pairs = [{"name": name, "type": type_} for name, type_ in fields]
    return {"type": "record", "name": name, "namespace": "shop", "fields": pairs}


CLICK = record(("user", "long"), ("price", "double"), ("item", "string"))


def encoded(schema, *values):
    parsed = fastavro.parse_schema(schema)
    made = []
    for value in values:
        stream = io.BytesIO()
        fastavro.schemaless_writer(stream, parsed, value)
        made.append(stream.getvalue())
    return made


@pytest.fixture
def messages(tmp_path):
    def make(schema, ids=()):
        paths = {}
        for number, one in {"own": schema, **dict(ids)}.items():
            path = tmp_path / f"{number}.avsc"
            path.write_text(json.dumps(one))
            paths[number] = str(path)
        own = paths.pop("own")
        return Messages(
            StreamSpec(
                brokers="h:1", topic="t", payload="avro", schema=own, schema_ids=paths
            )
        )

    return make


def test_records_are_rows(messages):
    reader = messages(CLICK)
    values = encoded(
        CLICK,
        {"user": -(2**63), "price": 1.5, "item": "ä"},
        {"user": 2**63 - 1, "price": -2.0, "item": ""},
    )
    columns = {"item": TEXT, "user": INT, "price": FLOAT}
    good, bad = rows(reader, events(values), columns)
    assert bad == {}
    assert good == [
        (100, "ä".encode(), -(2**63), 1.5),
        (101, b"", 2**63 - 1, -2.0),
    ]
    assert reader.schema([]) == columns


def test_types_of_fields(messages):
    suit = {"type": "enum", "name": "Suit", "symbols": ["HEART", "CLUB"]}
    fixed = {"type": "fixed", "name": "Four", "size": 4}
    money = {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}
    at = {"type": "long", "logicalType": "timestamp-millis"}
    inner = record(("id", "int"), ("suit", suit), name="Inner")
    schema = record(
        ("flag", "boolean"),
        ("inner", inner),
        ("other", ["null", inner | {"name": "Second"}]),
        ("maybe", ["null", "int"]),
        ("number", ["int", "double", "null"]),
        ("list", {"type": "array", "items": "long"}),
        ("names", ["null", {"type": "array", "items": "string"}]),
        ("raw", "bytes"),
        ("four", fixed),
        ("money", money),
        ("at", at),
        ("again", "Suit"),
    )
    second = schema["fields"][2]["type"][1]
    second["fields"] = [{"name": "id", "type": "int"}, {"name": "suit", "type": "Suit"}]
    when = datetime.datetime(2026, 11, 30, 12, tzinfo=datetime.UTC)
    given = {
        "flag": True,
        "inner": {"id": 3, "suit": "CLUB"},
        "other": {"id": 4, "suit": "HEART"},
        "maybe": 5,
        "number": 0.5,
        "list": [1, 2, 3],
        "names": ["a", "b"],
        "raw": b"\xff\0",
        "four": b"abcd",
        "money": decimal.Decimal("12.34"),
        "at": when,
        "again": "HEART",
    }
    reader = messages(schema)
    none = given | {"other": None, "maybe": None, "names": None, "number": 7}
    values = encoded(schema, given, none)
    found = reader.schema([])
    assert {name: (type_.dtype, type_.is_list) for name, type_ in found.items()} == {
        "flag": ("int64", False),
        "inner.id": ("int64", False),
        "inner.suit": ("string", False),
        "other.id": ("int64", False),
        "other.suit": ("string", False),
        "maybe": ("int64", False),
        "number": ("float32", False),
        "list": ("int64", True),
        "names": ("string", True),
        "raw": ("string", False),
        "four": ("string", False),
        "money": ("float32", False),
        "at": ("int64", False),
        "again": ("string", False),
    }
    good, bad = rows(reader, events(values[:1]), found)
    assert bad == {}
    millis = int(when.timestamp() * 1000)
    expected = [1, 3, b"CLUB", 4, b"HEART", 5, 0.5, [1, 2, 3], [b"a", b"b"]]
    expected += [b"\xff\0", b"abcd", np.float32(12.34), millis, b"HEART"]
    assert list(good[0][1:]) == expected
    for name in ("other.id", "maybe"):
        good, bad = rows(reader, events(values), {name: found[name]})
        assert len(good) == 1
        assert bad == {101: f"no value in column `{name}`, and no default"}
        default = ColumnType(dtype="int64", default=-1)
        good, bad = rows(reader, events(values), {name: default})
        assert [row[1] for row in good][1] == -1


def test_maps_unions_and_records_in_lists_cannot_be_read(messages):
    tree = record(("value", "int"), ("next", ["null", "shop.Tree"]), name="Tree")
    schema = record(
        ("map", {"type": "map", "values": "int"}),
        ("either", ["int", "string"]),
        ("bits", ["boolean", "int"]),
        ("tree", tree),
        ("many", {"type": "array", "items": record(("x", "int"), name="One")}),
    )
    found = messages(schema).schema([])
    readable = [name for name, type_ in found.items() if type_.is_readable]
    assert readable == ["tree.value"]
    assert found["either"].written == "Avro int or string"


def header(number):
    return b"\0" + number.to_bytes(4)


def test_messages_of_several_schemas_are_read_by_their_ids(messages):
    first = record(("user", "int"), ("item", "string"))
    more = {"name": "price", "type": "double", "default": -1.0}
    own = CLICK | {"fields": [*CLICK["fields"][:1], more, CLICK["fields"][2]]}
    reader = messages(own, {7: first, 258: own})
    values = encoded(first, {"user": 1, "item": "a"})
    values = [header(7) + values[0]]
    values += [
        header(258) + v for v in encoded(own, {"user": 2, "price": 3.0, "item": "b"})
    ]
    values += [header(9) + values[0][5:], values[0][5:], b"\0\0", b"{}"]
    good, bad = rows(
        reader, events(values), {"user": INT, "price": FLOAT, "item": TEXT}
    )
    assert good == [(100, 1, -1.0, b"a"), (101, 2, 3.0, b"b")]
    assert "has the schema 9, and `schema_ids` has 7, 258" in bad[102]
    for offset in (103, 104, 105):
        assert "does not begin with a 0 byte and the id of a schema" in bad[offset]


def test_a_schema_that_cannot_be_resolved_is_a_bad_row(messages):
    other = record(("user", "string"), ("price", "double"), ("item", "string"))
    reader = messages(CLICK, {1: CLICK, 2: other})
    values = [header(2) + encoded(other, {"user": "7", "price": 1.0, "item": "x"})[0]]
    good, bad = rows(reader, events(values), {"user": INT})
    assert good == []
    assert "not Avro of its schema" in bad[100]


def test_values_that_are_not_of_the_schema_are_bad_rows(messages):
    reader = messages(CLICK)
    (value,) = encoded(CLICK, {"user": 300, "price": 1.5, "item": "some text"})
    cut = [value[:end] for end in range(len(value))]
    longer = [value + b"\0", header(3) + value]
    kinds = [b'{"user": 1, "price": 1.5, "item": "a"}', b"\xff" * 40]
    given = [*cut, *longer, *kinds, value]
    good, bad = rows(reader, events(given), {"user": INT, "item": TEXT})
    assert good == [(100 + len(given) - 1, 300, b"some text")]
    assert len(bad) == len(given) - 1
    assert "has 1 bytes after the record" in bad[100 + len(cut)]
    assert "set `data.stream.schema_ids`" in bad[100 + len(cut) + 1]


def test_no_bytes_crash_the_decoder(messages):
    schema = record(
        ("a", ["null", {"type": "array", "items": "string"}]),
        ("b", {"type": "map", "values": "bytes"}),
        ("c", {"type": "enum", "name": "E", "symbols": ["X"]}),
    )
    reader = messages(schema)
    draw = random.Random(1)
    given = [draw.randbytes(draw.randrange(12)) for _ in range(3000)]
    columns = {"a": ColumnType(dtype="string", is_list=True), "c": TEXT}
    good, bad = rows(reader, events(given), columns)
    assert len(good) + len(bad) == len(given)


def test_files_that_are_no_schema_are_named(messages, tmp_path):
    with pytest.raises(
        ValueError, match=r"data\.stream\.schema.*must be of one record"
    ):
        messages("long")
    with pytest.raises(ValueError, match=r"schema_ids\[4\].*not an Avro schema"):
        messages(CLICK, {4: {"type": "record"}})
    spec = StreamSpec(brokers="h:1", topic="t", payload="avro", schema="/none.avsc")
    with pytest.raises(ValueError, match=r"data\.stream\.schema.*No such file"):
        Messages(spec)
    (tmp_path / "bad.avsc").write_text("{")
    spec = StreamSpec(
        brokers="h:1", topic="t", payload="avro", schema=str(tmp_path / "bad.avsc")
    )
    with pytest.raises(ValueError, match=r"bad\.avsc: Expecting"):
        Messages(spec)


def test_settings_that_do_not_fit_the_payload_are_refused():
    def spec(**given):
        return StreamSpec(brokers="h:1", topic="t", **given)

    with pytest.raises(ValueError, match="`schema` must be set for the payload avro"):
        spec(payload="avro")
    with pytest.raises(ValueError, match="`message` must be set for the payload proto"):
        spec(payload="protobuf", schema="x.desc")
    with pytest.raises(ValueError, match="`message` is not for the payload avro"):
        spec(payload="avro", schema="x.avsc", message="a.B")
    with pytest.raises(ValueError, match="`schema` is not for the payload json"):
        spec(schema="x.avsc")
    with pytest.raises(ValueError, match="`schema_ids` is not for the payload arrow"):
        spec(payload="arrow", schema_ids={1: "x"})
    with pytest.raises(ValueError, match="`schema_ids` must have ids of at least 0"):
        spec(payload="avro", schema="x", schema_ids={-1: "x"})
