"""Any text gives either a config or a `ConfigError` with places."""

import pathlib
import re

import hypothesis
import pytest
import yaml
from hypothesis import strategies as st

from monolith_tf import config as config_lib

DATA = pathlib.Path(__file__).parent / "testdata"
TEXTS = {name: (DATA / name).read_text() for name in ("dcn.yaml", "assembled.yaml")}
TREES = {name: yaml.safe_load(text) for name, text in TEXTS.items()}
_PLACE = re.compile(r"(config(:\d+)?|command line)(: |$)")

_settings = hypothesis.settings(
    deadline=None,
    derandomize=True,
    max_examples=100,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)


def try_to_load(text, overrides=()):
    try:
        config = config_lib.parse_config(text, "config", overrides, data="ignored")
    except config_lib.ConfigError as error:
        assert error.problems
        for problem in error.problems:
            assert _PLACE.match(str(problem)), str(problem)
    else:
        dumped = config_lib.dump_config(config)
        assert config_lib.parse_config(dumped, data="ignored") == config


def paths_of(tree, path=()):
    yield path
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        if isinstance(value, dict | list):
            yield from paths_of(value, (*path, key))
        else:
            yield (*path, key)


_PLACES = [(name, path) for name, tree in TREES.items() for path in paths_of(tree)]
_WORDS = ["name", "all", "x", "adam", "user", "dcn", "", "no", "${config_dir}", "auc"]
_SCALARS = (
    st.sampled_from(_WORDS)
    | st.integers()
    | st.floats()
    | st.booleans()
    | st.none()
    | st.text(max_size=5)
)
_KEYS = st.sampled_from(["name", "dim", "kind", "inputs", "class_"]) | st.text(
    max_size=3
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3)
    ),
    max_leaves=5,
)


def replaced(tree, path, change):
    if not path:
        return change(tree)
    copy = dict(tree) if isinstance(tree, dict) else list(tree)
    copy[path[0]] = replaced(copy[path[0]], path[1:], change)
    return copy


@hypothesis.given(place=st.sampled_from(_PLACES), value=_VALUES)
@_settings
def test_a_value_replaced(place, value):
    name, path = place
    tree = replaced(TREES[name], path, lambda _: value)
    try_to_load(yaml.safe_dump(tree))


@hypothesis.given(place=st.sampled_from(_PLACES), key=_KEYS, value=_VALUES)
@_settings
def test_a_key_added_or_removed(place, key, value):
    name, path = place

    def change(old):
        if isinstance(old, dict) and key in old:
            return {k: v for k, v in old.items() if k != key}
        if isinstance(old, dict):
            return {**old, key: value}
        return [*old, value] if isinstance(old, list) else value

    try_to_load(yaml.safe_dump(replaced(TREES[name], path, change)))


@hypothesis.given(place=st.sampled_from(_PLACES), value=_VALUES)
@_settings
def test_a_value_overridden(place, value):
    name, path = place
    text = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path)
    dumped = yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n")
    try_to_load(TEXTS[name], [f"{text.lstrip('.')}={dumped}"])


@hypothesis.given(override=st.text(alphabet="ab.[]0=tables trainer{}:-&*!\"'\n\t"))
@_settings
def test_any_override(override):
    try_to_load(TEXTS["dcn.yaml"], [override])


@hypothesis.given(
    name=st.sampled_from(sorted(TEXTS)),
    begin=st.integers(0, 900),
    length=st.integers(0, 8),
    put=st.text(alphabet="{}[]:,-&*!<>|'\"#%@`?~ \n\ta0.$\x00\ud800é"),
)
@_settings
def test_characters_replaced(name, begin, length, put):
    text = TEXTS[name]
    try_to_load(text[:begin] + put + text[begin + length :])


@pytest.mark.parametrize("text", ["\x00", "\ufeff", "? ?", "- - -", "*a", "!!", "%"])
def test_odd_texts(text):
    try_to_load(text)
