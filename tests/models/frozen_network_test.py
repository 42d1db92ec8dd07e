"""Tests of the network over frozen tables."""

import pytest

from monolith_tf.models import base
from monolith_tf.testing import small_network


def test_frozen_tables_do_not_learn():
    network = small_network.make()
    columns = small_network.sample(user=[1], history=[[2]], item=[3], price=[0.5])
    network(columns, base.Mode.PREDICT)
    with pytest.raises(ValueError, match=r"`mode` must be EVAL or PREDICT.*TRAIN"):
        network(columns, base.Mode.TRAIN)
