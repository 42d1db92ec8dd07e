"""A config for manifests."""

import pytest

from monolith_tf import config as config_lib

_TEXT = """\
model_dir: runs/Clicks_v2
data: {train: data/*.parquet, batch_size: 64}
features: [{name: user, kind: id}]
labels: [click]
default_table: {dim: 4, optimizer: adagrad}
model: {name: dcn, params: {label: click}}
cluster: {ps: 2, workers: 3}
"""


@pytest.fixture
def parse():
    """Returns a config with overrides."""

    def with_overrides(*overrides):
        return config_lib.parse_config(_TEXT, overrides=overrides, data="ignored")

    return with_overrides
