"""Tests of sending files to a topic."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from confluent_kafka import Consumer
from confluent_kafka import TopicPartition

from monolith_tf.cli import main
from monolith_tf.data.stream import replay as replay_lib
from tests.data.stream import brokers


@pytest.fixture(scope="module")
def broker():
    with brokers.Broker() as running:
        yield running


def received(broker, topic, count, partitions=1):
    consumer = Consumer(
        {
            "bootstrap.servers": broker.address,
            "group.id": "tests",
            "auto.offset.reset": "earliest",
        }
    )
    consumer.assign([TopicPartition(topic, p, 0) for p in range(partitions)])
    messages = []
    while len(messages) < count:
        new = consumer.consume(count, timeout=20)
        assert new
        messages += new
    assert not consumer.consume(1, timeout=0.5)
    consumer.close()
    return messages


def _run(arguments):
    return main.main(main.parse(["monolith-tf", *arguments]))


def replay(broker, topic, files, *more):
    url = f"kafka://{broker.address}/{topic}"
    return _run(["replay", str(files), "--to", url, *more])


def test_each_row_is_a_message_in_the_order_of_the_files(tmp_path, broker):
    topic = broker.create("rows")
    rows = pa.table(
        {
            "id": np.arange(500),
            "name": [f"n{i % 7}" if i % 5 else None for i in range(500)],
            "list": [list(range(i % 4)) for i in range(500)],
            "price": np.linspace(0, 1, 500),
            "at": pa.array(np.arange(1, 501) * 1000, pa.timestamp("ms")),
        }
    )
    pq.write_table(rows.slice(0, 200), tmp_path / "0.parquet")
    pq.write_table(rows.slice(200), tmp_path / "1.parquet")
    assert replay(broker, topic, tmp_path / "*.parquet", "--time-column", "at") == 0
    messages = received(broker, topic, 500)
    expected_rows = rows.to_pylist()
    for number, (message, row) in enumerate(zip(messages, expected_rows, strict=True)):
        row["at"] = (number + 1) * 1000
        expected = {name: value for name, value in row.items() if value is not None}
        assert json.loads(message.value()) == expected
        assert message.timestamp()[1] == (number + 1) * 1000


def test_messages_of_one_key_go_to_one_partition(tmp_path, broker):
    topic = broker.create("keys", 3)
    (tmp_path / "rows.csv").write_text(
        "user;x\n" + "".join(f"{i % 10};{i}\n" for i in range(300))
    )
    code = replay(
        broker, topic, tmp_path / "rows.csv", "data.delimiter=;", "--key-column", "user"
    )
    assert code == 0
    places = {}
    for message in received(broker, topic, 300, partitions=3):
        row = json.loads(message.value())
        assert message.key() == str(row["user"]).encode()
        places.setdefault(row["user"], set()).add(message.partition())
    assert len(places) == 10
    assert all(len(partitions) == 1 for partitions in places.values())
    assert len(set.union(*places.values())) > 1


def test_wrong_arguments_are_named(tmp_path, broker, capsys):
    (tmp_path / "rows.csv").write_text("user,x\n1,2\n")
    assert _run(["replay", str(tmp_path / "rows.csv"), "--to", "localhost:9092"]) == 2
    assert "--to: A stream must be `kafka://HOST:PORT/TOPIC`" in capsys.readouterr().err
    assert replay(broker, "t", tmp_path / "none.csv") == 2
    assert "no file matches" in capsys.readouterr().err
    assert (
        replay(broker, broker.create("c"), tmp_path / "rows.csv", "--key-column", "z")
        == 1
    )
    assert "no column `z`" in capsys.readouterr().err


def test_brokers_that_do_not_answer_are_named_before_rows_are_read(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(replay_lib, "_REQUEST_SECS", 1)
    (tmp_path / "rows.csv").write_text("user,x\n1,2\n")
    arguments = ["--to", "kafka://127.0.0.1:1/t"]
    assert _run(["replay", str(tmp_path / "rows.csv"), *arguments]) == 1
    assert "No answer from the brokers at 127.0.0.1:1" in capsys.readouterr().err
