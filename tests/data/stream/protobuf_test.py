"""Tests of messages in Protobuf."""

import random
import struct

import numpy as np
import pytest
from google.protobuf import descriptor_pb2
from google.protobuf import descriptor_pool
from google.protobuf import message_factory

from monolith_tf.data.stream.payloads import Messages
from monolith_tf.data.stream.spec import StreamSpec
from monolith_tf.features.columns import ColumnType
from tests.data.stream.decoding import events
from tests.data.stream.decoding import rows

Field = descriptor_pb2.FieldDescriptorProto

INT = ColumnType(dtype="int64")
FLOAT = ColumnType(dtype="float32")
TEXT = ColumnType(dtype="string")
INTS = ColumnType(dtype="int64", is_list=True)

KINDS = {
    "int64": Field.TYPE_INT64,
    "sint32": Field.TYPE_SINT32,
    "uint64": Field.TYPE_UINT64,
    "float": Field.TYPE_FLOAT,
    "double": Field.TYPE_DOUBLE,
    "bool": Field.TYPE_BOOL,
    "string": Field.TYPE_STRING,
    "bytes": Field.TYPE_BYTES,
}


def add(message, number, name, kind, *, repeated=False, optional=False):
    """Adds a field; `kind` is a type's name, `.Message` or `=Enum`."""
    field = message.field.add(name=name, number=number)
    field.label = Field.LABEL_REPEATED if repeated else Field.LABEL_OPTIONAL
    if kind[0] in ".=":
        field.type = Field.TYPE_MESSAGE if kind[0] == "." else Field.TYPE_ENUM
        field.type_name = f".shop.{kind[1:]}"
    else:
        field.type = KINDS[kind]
    if optional:
        field.proto3_optional = True
        message.oneof_decl.add(name=f"_{name}")
        field.oneof_index = len(message.oneof_decl) - 1


def file_of(**messages):
    """Returns a file with messages, each a list of arguments of `add`."""
    file = descriptor_pb2.FileDescriptorProto(
        name="clicks.proto", package="shop", syntax="proto3"
    )
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for number, (field, kind, *more) in enumerate(fields, 1):
            add(message, number, field, kind, **(more[0] if more else {}))
    return file


def click():
    file = file_of(
        Other=[("x", "int64")],
        Inner=[("id", "sint32"), ("name", "string")],
        Click=[
            ("user", "int64"),
            ("price", "double"),
            ("item", "string"),
            ("list", "int64", {"repeated": True}),
            ("inner", ".Inner"),
            ("flag", "bool"),
            ("maybe", "float", {"optional": True}),
            ("suit", "=Suit"),
            ("raw", "bytes"),
            ("big", "uint64"),
            ("parent", ".Click"),
            ("many", ".Inner", {"repeated": True}),
        ],
    )
    suit = file.enum_type.add(name="Suit")
    suit.value.add(name="HEART", number=0)
    suit.value.add(name="CLUB", number=3)
    return file


def made(file, name="Click"):
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"shop.{name}"))


@pytest.fixture
def messages(tmp_path):
    def make(file, ids=(), name="shop.Click"):
        paths = {}
        for number, one in {"own": file, **dict(ids)}.items():
            path = tmp_path / f"{number}.desc"
            files = descriptor_pb2.FileDescriptorSet(file=[one])
            path.write_bytes(files.SerializeToString())
            paths[number] = str(path)
        own = paths.pop("own")
        return Messages(
            StreamSpec(
                brokers="h:1",
                topic="t",
                payload="protobuf",
                schema=own,
                schema_ids=paths,
                message=name,
            )
        )

    return make


def test_messages_are_rows(messages):
    make = made(click())
    one = make(
        user=-(2**63),
        price=1.25,
        item="ä",
        list=[1, -2],
        inner={"id": -5, "name": "n"},
        flag=True,
        maybe=0.0,
        suit=3,
        raw=b"\xff\0",
        big=2**63 - 1,
    )
    reader = messages(click())
    found = reader.schema([])
    readable = {name: type_ for name, type_ in found.items() if type_.is_readable}
    assert list(found)[-2:] == ["parent", "many"]
    assert {name: type_.dtype for name, type_ in readable.items()} == {
        "user": "int64",
        "price": "float32",
        "item": "string",
        "list": "int64",
        "inner.id": "int64",
        "inner.name": "string",
        "flag": "int64",
        "maybe": "float32",
        "suit": "string",
        "raw": "string",
        "big": "int64",
    }
    assert [name for name, type_ in found.items() if type_.is_list] == ["list"]
    good, bad = rows(reader, events([one.SerializeToString()]), readable)
    assert bad == {}
    expected = [-(2**63), 1.25, "ä".encode(), [1, -2], -5, b"n", 1, 0.0, b"CLUB"]
    assert list(good[0][1:]) == [*expected, b"\xff\0", 2**63 - 1]


def test_bytes_worked_by_hand(messages):
    value = bytes.fromhex("08ac02") + b"\x11" + struct.pack("<d", 0.5) + b"\x1a\x01x"
    good, bad = rows(
        messages(click()), events([value]), {"user": INT, "price": FLOAT, "item": TEXT}
    )
    assert (good, bad) == ([(100, 300, 0.5, b"x")], {})


def test_a_field_without_a_value(messages):
    make = made(click())
    values = [make(user=1).SerializeToString()]
    reader = messages(click())
    good, bad = rows(
        reader, events(values), {"price": FLOAT, "list": INTS, "suit": TEXT}
    )
    assert (good, bad) == ([(100, 0.0, [], b"HEART")], {})
    for name in ("maybe", "inner.id"):
        good, bad = rows(reader, events(values), {name: FLOAT})
        assert bad == {100: f"no value in column `{name}`, and no default"}
    good, _ = rows(
        reader, events(values), {"maybe": ColumnType(dtype="float32", default=9)}
    )
    assert good == [(100, 9.0)]


def test_values_that_do_not_fit_are_bad_rows(messages):
    make = made(click())
    values = [make(big=2**63).SerializeToString(), make(suit=2).SerializeToString()]
    _, bad = rows(messages(click()), events(values), {"big": INT})
    assert "column `big`: 9223372036854775808 is not an integer" in bad[100]
    assert "column `suit`: 2 is no value of shop.Suit" in bad[101]


def test_a_field_that_changed_its_type_is_a_bad_row(messages):
    changed = click()
    changed.message_type[2].field[0].type = Field.TYPE_STRING
    inner = click()
    inner.message_type[1].field[0].type = Field.TYPE_DOUBLE
    values = [
        made(changed)(user="7", item="x").SerializeToString(),
        made(inner)(user=7, inner={"id": 1.5}).SerializeToString(),
    ]
    good, bad = rows(messages(click()), events(values), {"user": INT})
    assert good == []
    assert "field 1, `user`, is not of its type in the schema" in bad[100]
    assert "field 1, `inner.id`, is not of its type" in bad[101]


def test_a_new_field_is_not_read(messages):
    more = click()
    add(more.message_type[2], 30, "new", "string")
    value = made(more)(user=7, new="x").SerializeToString()
    assert rows(messages(click()), events([value]), {"user": INT}) == ([(100, 7)], {})


def test_payloads_of_another_kind_are_bad_rows(messages):
    value = made(click())(user=7, item="some text").SerializeToString()
    other = file_of(Click=[("a", "int64")] * 1)
    other.message_type[0].field[0].number = 99
    given = [
        b'{"user": 7}',
        b"\0\0\0\0\1\0" + value,
        value[:-1],
        made(other)(a=1).SerializeToString(),
        b"\xff" * 30,
    ]
    good, bad = rows(messages(click()), events(given), {"user": INT})
    assert good == []
    assert sorted(bad) == [100, 101, 102, 103, 104]
    assert "set `data.stream.schema_ids`" in bad[101]
    assert "has no field of shop.Click" in bad[103]


def test_no_bytes_crash_the_decoder(messages):
    draw = random.Random(1)
    given = [draw.randbytes(draw.randrange(20)) for _ in range(3000)]
    good, bad = rows(messages(click()), events(given), {"user": INT})
    assert len(good) + len(bad) == len(given)


def header(number, *places):
    return b"\0" + number.to_bytes(4) + bytes(places)


def test_messages_are_read_by_the_schema_of_their_header(messages):
    # In another file `Click` is the first type, and `user` another field.
    second = file_of(Click=[("item", "string"), ("user", "sint32"), ("more", "double")])
    reader = messages(click(), {7: click(), 258: second})
    old = made(click())(user=1, item="a").SerializeToString()
    new = made(second)(user=-2, item="b", more=1).SerializeToString()
    given = [
        header(7, 2, 4) + old,  # One index (zigzag), and it is 2.
        header(258, 0) + new,  # A single 0 is the first type.
        header(258, 2, 0) + new,
        header(7, 0) + old,
        header(8, 0) + old,
        header(7, 2, 4) + new,
        header(7, 0x80),
        header(7, 200),
        old,
    ]
    good, bad = rows(reader, events(given), {"user": INT, "item": TEXT})
    assert good == [(100, 1, b"a"), (101, -2, b"b"), (102, -2, b"b")]
    assert "is of the type [0] of its schema, and shop.Click is [2]" in bad[103]
    assert "has the schema 8, and `schema_ids` has 7, 258" in bad[104]
    assert "is not of its type" in bad[105]
    assert "header of the schema registry is damaged" in bad[106]
    assert "header of the schema registry is damaged" in bad[107]
    assert "does not begin with a 0 byte" in bad[108]


def test_a_column_that_a_schema_lacks_has_no_value(messages):
    second = file_of(Click=[("user", "int64")])
    reader = messages(click(), {1: click(), 2: second})
    given = [header(2, 0) + made(second)(user=5).SerializeToString()]
    _, bad = rows(reader, events(given), {"user": INT, "price": FLOAT})
    assert bad == {100: "no value in column `price`, and no default"}


def test_files_that_are_no_descriptor_set_are_named(messages, tmp_path):
    with pytest.raises(ValueError, match=r"no message `shop\.Clack`.*shop\.Click"):
        messages(click(), name="shop.Clack")
    lacking = click()
    lacking.dependency.append("google/protobuf/timestamp.proto")
    with pytest.raises(ValueError, match="--include_imports"):
        messages(lacking)
    path = tmp_path / "text.desc"
    path.write_text("message Click {}")
    spec = StreamSpec(
        brokers="h:1",
        topic="t",
        payload="protobuf",
        schema=str(path),
        message="shop.Click",
    )
    with pytest.raises(
        ValueError, match=r"data\.stream\.schema.*no complete descriptor"
    ):
        Messages(spec)


def test_many_messages_equal_what_was_sent(messages):
    draw = np.random.default_rng(1)
    make = made(click())
    users = draw.integers(-(2**63), 2**63, 500)
    lists = [draw.integers(-9, 9, size).tolist() for size in draw.integers(0, 5, 500)]
    values = [
        make(user=int(user), list=some).SerializeToString()
        for user, some in zip(users, lists, strict=True)
    ]
    good, bad = rows(messages(click()), events(values), {"user": INT, "list": INTS})
    assert bad == {}
    assert [row[1] for row in good] == users.tolist()
    assert [row[2] for row in good] == lists
