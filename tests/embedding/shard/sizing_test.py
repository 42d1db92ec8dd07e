"""Tests of how much room tables are given at first."""

import os
from unittest import mock

import pytest

from monolith_tf.embedding import optimizer_spec
from monolith_tf.embedding.lookup import layout
from monolith_tf.embedding.placement import Placement
from monolith_tf.embedding.shard import sizing
from monolith_tf.embedding.spec import TableSpec


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A machine of 24 GiB."""
    sizes = {"SC_PHYS_PAGES": 6 << 20, "SC_PAGE_SIZE": 1 << 12}
    monkeypatch.setattr(os, "sysconf", mock.Mock(side_effect=sizes.get))
    # All other tests take less, to share a machine.
    monkeypatch.setattr(sizing, "_SHARE_OF_MEMORY", 1 / 32)


def _groups(*dims):
    adagrad = optimizer_spec.AdagradSpec()
    return layout.merge_tables(
        [
            TableSpec(name=f"t{dim}", slot=dim, dim=dim, optimizer=adagrad)
            for dim in dims
        ]
    )


def test_a_table_begins_with_room_for_a_share_of_the_machine():
    (group,) = _groups(4)
    # 4 weights and 4 numbers of state of 4 bytes, an id and a freed row's number.
    row = 4 * 4 + 4 * 4 + 8 + 8
    assert sizing.capacity(group, [group], Placement()) == (24 << 30) // 32 // row


def test_groups_and_shards_of_a_device_share_its_room():
    groups = _groups(4, 12)
    row = 2 * 12 * 4 + 8 + 8
    share = (24 << 30) // 32
    one = Placement(num_shards=3)
    assert sizing.capacity(groups[1], groups, one) == share // (2 * 3 * row)
    each = Placement(num_shards=2, devices=("/job:ps/task:0", "/job:ps/task:1"))
    assert sizing.capacity(groups[1], groups, each) == share // (2 * row)
