"""URLs are rejected wherever a path is expected."""

import pathlib

import pytest

from monolith_tf import config as config_lib
from monolith_tf import paths

_URLS = ["gs://bucket/job", "s3://b", "file:///tmp/x", "hdfs://h:9000/a", "S3A://b/c"]
_LISTS = ["data.train", "data.eval", "data.test", "trainer.warm_start"]
_CONFIG = """\
model_dir: runs/a
data: {train: data/*.csv, batch_size: 64}
features: [{name: user, kind: id}]
labels: [click]
default_table: {dim: 4, optimizer: adagrad}
model: {name: dcn, params: {label: click}}
"""


@pytest.mark.parametrize("url", _URLS)
def test_urls(url):
    for path in (url, pathlib.Path(url)):
        with pytest.raises(ValueError, match=r"`--output` must be a path on this mach"):
            paths.check("--output", path)


@pytest.mark.parametrize("path", ["a", "/a/b", "./gs:", "a/b://c", "c:/x", "x:y", ""])
def test_paths(path):
    paths.check("PATH", path)


@pytest.mark.parametrize(
    "override",
    [
        "model_dir={}",
        "export.directory={}",
        *(f"{key}={{}}" for key in _LISTS),
        *(f"{key}=[local, {{}}]" for key in _LISTS),
    ],
)
def test_keys_of_a_config(override):
    overrides = [override.format("gs://bucket/job")]
    with pytest.raises(config_lib.ConfigError) as caught:
        config_lib.parse_config(_CONFIG, overrides=overrides, data="ignored")
    key = override.partition("=")[0]
    name = key.rpartition(".")[2]
    assert str(caught.value) == (
        f"command line: `{key}`: `{name}` must be a path on this machine; URLs cannot "
        f"be read or written. Received: {name}='gs://bucket/job'. Mount the storage, "
        "and use the path under the mount."
    )


def test_the_line_of_a_config():
    text = _CONFIG.replace("runs/a", "gs://bucket/job")
    with pytest.raises(
        config_lib.ConfigError, match=r"^config:1: `model_dir`: `model_dir` must be"
    ):
        config_lib.parse_config(text, data="ignored")


def test_a_reader_of_ones_own_may_read_urls():
    overrides = ["data.train=gs://bucket/a", "data.reader=module:Reader"]
    config = config_lib.parse_config(_CONFIG, overrides=overrides, data="ignored")
    assert config.data.train == ("gs://bucket/a",)
