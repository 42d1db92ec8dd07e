"""Tests of the slots of embedding tables."""

import json

import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from monolith_tf.features import SlotRegistry
from monolith_tf.features import assign


def test_slots_rise_in_config_order():
    assert assign({"b": None, "a": None}).slots == {"b": 1, "a": 2}


def test_given_slots_are_kept_and_left_out_by_the_others():
    made = assign({"a": None, "b": 2, "c": None, "d": 0, "e": 32767})
    assert made.slots == {"a": 1, "b": 2, "c": 3, "d": 0, "e": 32767}
    assert made.next == 4


def test_adding_and_removing_tables_changes_no_other_slot():
    first = assign({"a": None, "b": None, "c": None})
    without_b = assign({"a": None, "c": None, "d": None}, first)
    assert without_b.slots == {"a": 1, "b": 2, "c": 3, "d": 4}
    again = assign({"e": None, "b": None, "a": None}, without_b)
    assert again.slots == {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}


def test_registry_goes_through_json():
    made = assign({"a": None, "b": 7})
    assert SlotRegistry.from_json(json.loads(json.dumps(made.to_json()))) == made
    assert made.to_json() == {"slots": {"a": 1, "b": 7}, "next": 2}


@pytest.mark.parametrize(
    ("tables", "text"),
    [
        (
            {"new": 2},
            "`slot` of table `new` belongs to table `b`, now or in an earlier",
        ),
        ({"x": 9, "y": 9}, "`slot` of table `y` belongs to table `x`.*slot=9"),
        ({"a": 4}, "table `a` was 1 when its rows were trained .* Received: slot=4"),
        ({"x": 32768}, r"`slot` must be in \[0, 32768\)"),
        ({"x": -1}, r"`slot` must be in \[0, 32768\)"),
    ],
)
def test_errors(tables, text):
    with pytest.raises(ValueError, match=text):
        assign(tables, SlotRegistry(slots={"a": 1, "b": 2}, next=3))


def test_no_slot_is_left():
    full = SlotRegistry(slots={f"t{i}": i for i in range(1, 32768)}, next=32768)
    assert assign({"t5": None}, full) == full
    with pytest.raises(ValueError, match="No slot is left for table `x`: all 32767"):
        assign({"x": None}, full)


NAMES = st.sampled_from("abcdefgh")


@settings(deadline=None, derandomize=True, max_examples=100)
@given(
    st.lists(
        st.dictionaries(NAMES, st.none() | st.integers(0, 12), max_size=5), max_size=6
    )
)
def test_a_slot_once_given_out_is_one_tables_for_ever(history):
    registry = SlotRegistry()
    owners = {}
    for tables in history:
        try:
            registry = assign(tables, registry)
        except ValueError:
            continue
        for name in tables:
            slot = registry.slots[name]
            assert owners.setdefault(slot, name) == name
            assert tables[name] in (None, slot)
        assert set(owners.values()) == set(registry.slots)
