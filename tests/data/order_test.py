"""Tests of the order of rows and of held-out rows."""

import numpy as np

from monolith_tf.data import order


def splitmix64(x):
    x = (x + 0x9E3779B97F4A7C15) % 2**64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    return x ^ (x >> 31)


def state_of(*key):
    state = 0
    for part in key:
        state = splitmix64((state + part) % 2**64)
    return state


def test_permutation_is_the_order_of_the_hashes():
    for key in ((0, 1, 2), (2**63 - 1, 2, 5, 7)):
        state = state_of(*key)
        expected = sorted(range(50), key=lambda i: splitmix64((state + i) % 2**64))
        assert order.permutation(50, *key).tolist() == expected


def test_permutation_of_nothing_and_of_one():
    assert order.permutation(0, 3).tolist() == []
    assert order.permutation(1, 3).tolist() == [0]


def test_permutations_of_other_keys_have_nothing_in_common():
    orders = [order.permutation(1000, 7, 2, epoch) for epoch in range(4)]
    for a in range(4):
        for b in range(a):
            # About one of 1000 stays in place by chance.
            assert np.sum(orders[a] == orders[b]) < 10


def test_every_place_is_equally_likely():
    places = [np.flatnonzero(order.permutation(4, k) == 0)[0] for k in range(4000)]
    # 1000 each, with standard deviation sqrt(4000 * 3/16) = 27.
    assert np.all(np.abs(np.bincount(places) - 1000) < 6 * 27)


def test_held_out_is_a_share_by_the_hash():
    limit = int(0.25 * 2**64)
    state = state_of(3, 4)
    rows = np.array([0, 1, 5, 1000, 2**40])
    expected = [splitmix64((state + int(row)) % 2**64) < limit for row in rows]
    assert order.held_out(rows, 0.25, 3, 4).tolist() == expected
    share = order.held_out(np.arange(100_000), 0.25, 3, 4).mean()
    assert abs(share - 0.25) < 6 * np.sqrt(0.25 * 0.75 / 100_000)


def test_held_out_of_no_rows_or_no_share():
    assert order.held_out(np.arange(0), 0.5, 1).tolist() == []
    assert not order.held_out(np.arange(1000), 0.0, 1).any()


def test_below_is_the_rest_of_the_hash():
    state = state_of(5, 4, 1)
    places = [0, 1, 7, 2**40]
    expected = [splitmix64((state + place) % 2**64) % 13 for place in places]
    assert order.below(13, np.array(places), 5, 4, 1).tolist() == expected
