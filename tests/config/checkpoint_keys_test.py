"""Tests of `trainer.checkpoint` in a config file: forms, errors, and dumping."""

import pathlib

import pytest

from monolith_tf import config as config_lib
from monolith_tf.experiment import checkpointing
from monolith_tf.training import checkpoint_spec

GOOD = (pathlib.Path(__file__).parent / "testdata" / "dcn.yaml").read_text()
TOPIC = "data.train=kafka://localhost:9092/clicks"


def load(*overrides):
    return config_lib.parse_config(GOOD, "x.yaml", overrides, data="ignored")


def errors_of(*overrides):
    with pytest.raises(config_lib.ConfigError) as caught:
        load(*overrides)
    return str(caught.value)


def test_every_form_is_read_and_dumped():
    keys = "trainer.checkpoint={full_every: {event: 10m}, delta_every: 30s}"
    config = load(TOPIC, "trainer.checkpoint_every_steps=null", keys)
    expected = checkpoint_spec.CheckpointSpec(
        full_every=checkpoint_spec.EventInterval(event="10m"), delta_every="30s"
    )
    assert config.trainer.checkpoint == expected
    text = config_lib.dump_config(config)
    again = config_lib.parse_config(text, "x.yaml", (), data="ignored")
    assert again.trainer.checkpoint == expected
    steps = load(
        "trainer.checkpoint_every_steps=null", "trainer.checkpoint.full_every=200"
    )
    assert steps.trainer.checkpoint.full_every == 200


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{delta_every: soon}", "`delta_every` must be a number of steps, or a time"),
        ("{delta_every: {event: 5}}", "`trainer.checkpoint.delta_every"),
        ("{delta_every: {event: 10m}}", "only messages of a topic, `data.stream`"),
        ("{every: 5}", "unknown key"),
    ],
)
def test_wrong_forms_are_named(value, message):
    assert message in errors_of(f"trainer.checkpoint={value}")


def test_a_topic_has_intervals_where_none_is_set():
    none = ("trainer.checkpoint_every_steps=null", "trainer.checkpoint_every_secs=null")
    found = checkpointing.spec(load(TOPIC, *none))
    assert (found.full_every, found.delta_every) == ("1h", "1m")
    assert checkpointing.writes_deltas(load(TOPIC, *none))
    for other in (
        load(*none),
        load(TOPIC, *none[1:], "trainer.checkpoint_every_steps=5"),
        load(TOPIC, *none, "trainer.checkpoint={full_every: 5}"),
    ):
        assert not checkpointing.writes_deltas(other)
