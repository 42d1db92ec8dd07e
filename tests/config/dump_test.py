import dataclasses
import pathlib

import hypothesis
import pytest
import yaml
from hypothesis import strategies as st

from monolith_tf import config as config_lib

DATA = pathlib.Path(__file__).parent / "testdata"


@pytest.mark.parametrize("name", ["dcn.yaml", "assembled.yaml"])
def test_reading_what_was_written_gives_an_equal_config(name):
    config = config_lib.load_config(DATA / name, data="ignored")
    text = config_lib.dump_config(config)
    assert config_lib.parse_config(text, data="ignored") == config


def test_defaults_are_spelled_out_and_empty_ones_left_out():
    config = config_lib.load_config(DATA / "dcn.yaml", data="ignored")
    plain = yaml.safe_load(config_lib.dump_config(config))
    assert plain["trainer"]["log_every_steps"] == 100
    assert plain["trainer"]["optimizer"]["name"] == "adam"
    assert "early_stop" not in plain["trainer"]
    assert next(iter(plain["tables"][0]["optimizer"])) == "name"
    assert plain["model"] == {
        "name": "dcn",
        "params": {"label": "click", "hidden_units": [256, 128]},
    }


def test_none_is_written_where_it_is_not_the_default():
    config = config_lib.load_config(DATA / "dcn.yaml", data="ignored")
    config = dataclasses.replace(
        config, metrics=(), trainer=dataclasses.replace(config.trainer, keep_best=None)
    )
    plain = yaml.safe_load(config_lib.dump_config(config))
    assert plain["metrics"] == []
    assert "keep_best" not in plain["trainer"]


def test_the_key_of_an_own_class():
    config = config_lib.load_config(
        DATA / "dcn.yaml", ["model={class: 'a.b:C'}"], data="ignored"
    )
    text = config_lib.dump_config(config)
    assert yaml.safe_load(text)["model"] == {"class": "a.b:C"}
    assert config_lib.parse_config(text, data="ignored") == config


_SCALARS = (
    st.text()
    | st.sampled_from(
        ["no", "1e-3", "0123", "~", "", "2024-01-01", "<<", "true", "1_0"]
    )
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.booleans()
    | st.none()
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
    ),
    max_leaves=8,
)


@hypothesis.given(params=st.dictionaries(st.text(), _VALUES, max_size=3))
@hypothesis.settings(deadline=None, derandomize=True, max_examples=50)
def test_any_parameters_survive(params):
    hypothesis.assume("${" not in repr(params))
    config = config_lib.load_config(DATA / "dcn.yaml", data="ignored")
    model = dataclasses.replace(
        config.model, name=None, class_="my_model:MyModel", params=params
    )
    config = dataclasses.replace(config, model=model)
    text = config_lib.dump_config(config)
    assert config_lib.parse_config(text, data="ignored") == config
    # What another reader of YAML 1.1 reads.
    assert yaml.safe_load(text)["model"].get("params", {}) == params
