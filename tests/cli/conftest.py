"""Keeps the command line's logging out of the test process."""

import pytest
from absl import logging

from monolith_tf.cli import progress


@pytest.fixture(autouse=True)
def _own_log(monkeypatch):
    monkeypatch.setattr(progress, "attach_log", lambda view, *, verbose=False: None)
    verbosity = logging.get_verbosity()
    yield
    logging.set_verbosity(verbosity)
