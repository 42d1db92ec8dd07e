"""Checks of `publish` in configs."""

import re

import pytest

from monolith_tf import config as config_lib
from monolith_tf.export import publish_spec

_TO = {"to": ("127.0.0.1:8500",)}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"to": ()}, "`to` must name at least one server"),
        ({"to": ("host",)}, "`to` must be host:port"),
        ({**_TO, "every_secs": 0}, "`every_secs` must be finite and above 0"),
        ({**_TO, "closing_secs": -1}, "`closing_secs` must be finite and not negative"),
    ],
)
def test_wrong_values_are_named(values, message):
    with pytest.raises(ValueError, match=message):
        publish_spec.PublishSpec(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rows": 0}, "`rows` must be at least 1"),
        ({"log_loss_rise": 0}, "`log_loss_rise` must be finite and above 0"),
        ({"window_secs": float("inf")}, "`window_secs` must be finite"),
        ({"calibration": (1.5, 2.0)}, r"in \(0, 1\) and one above 1"),
    ],
)
def test_wrong_limits_are_named(values, message):
    with pytest.raises(ValueError, match=message):
        publish_spec.GuardSpec(**values)


def test_a_certificate_needs_its_key():
    with pytest.raises(ValueError, match="`cert` and `key` must be given together"):
        publish_spec.TlsSpec(ca="ca.pem", cert="cert.pem")


def test_a_config_that_publishes_needs_spare_rows():
    config = "configs/census_mmoe.yaml"
    given = ["publish.to=['127.0.0.1:8500']"]
    with pytest.raises(
        config_lib.ConfigError, match=re.escape("Set `export.spare_rows`")
    ):
        config_lib.load_config(config, given, data="ignored")
    given += ["export.spare_rows=10", "publish.guard=null"]
    loaded = config_lib.load_config(config, given, data="ignored")
    assert loaded.publish == publish_spec.PublishSpec(**_TO, guard=None)
