import dataclasses

import pytest

from monolith_tf import imports
from monolith_tf.models import base
from monolith_tf.models import spec

BLOCK = spec.BlockSpec(name="tower", layer="MLP", inputs=("all",))
HEAD = spec.HeadSpec(label="click", inputs=("tower",))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tower", spec.Reference("tower")),
        ("tower[2]", spec.Reference("tower", index=2)),
        ("tower.2", spec.Reference("tower", index=2)),
        ("user.bias", spec.Reference("user", part="bias")),
        ("user.mask", spec.Reference("user", part="mask")),
        ("user-id/x", spec.Reference("user-id/x")),
    ],
)
def test_references(text, expected):
    assert spec.parse_reference(text) == expected


@pytest.mark.parametrize("text", ["", "a[", "a[x]", "a[0].b", "a.b.c", "[0]", ".a"])
def test_what_is_no_reference(text):
    with pytest.raises(ValueError, match=r"^`inputs` must be names, or of the form "):
        spec.parse_reference(text)


def test_the_three_kinds_of_models():
    named = spec.ModelSpec(name="dcn", params={"label": "click"})
    assert (named.name, named.class_, named.blocks) == ("dcn", None, ())
    own = spec.ModelSpec(class_="my_pkg.my_module:MyModel")
    assert (own.name, own.class_) == (None, "my_pkg.my_module:MyModel")
    made = spec.ModelSpec(blocks=(BLOCK,), heads=(HEAD,), groups={"ids": ("user",)})
    assert (made.name, made.blocks, made.heads) == (None, (BLOCK,), (HEAD,))


_ERRORS = {
    "none": (
        {},
        "Exactly one of `name`, `class` and `blocks` must be set. "
        "Received: none of them.",
    ),
    "two": (
        {"name": "dcn", "class_": "a:B"},
        "Exactly one of `name`, `class` and `blocks` must be set. "
        "Received: `name` and `class`.",
    ),
    "class": (
        {"class_": "a.b"},
        "`class` must be of the form `package.module:Class`. Received: class='a.b'.",
    ),
    "heads_of_a_name": (
        {"name": "dcn", "heads": (HEAD,)},
        "`heads` belongs to a model assembled from `blocks`. Received: `heads` with "
        "`name`. Remove it.",
    ),
    "groups_of_a_class": (
        {"class_": "a:B", "groups": {"a": ("b",)}},
        "`groups` belongs to a model assembled from `blocks`. Received: `groups` with "
        "`class`. Remove it.",
    ),
    "no_heads": (
        {"blocks": (BLOCK,)},
        "`heads` must have at least one entry. Received: none.",
    ),
    "params_of_blocks": (
        {"blocks": (BLOCK,), "heads": (HEAD,), "params": {"a": 1}},
        "`params` belongs to a model set by `name` or `class`; a block takes `args`. "
        "Received: params={'a': 1} with `blocks`.",
    ),
    "blocks_of_one_name": (
        {"blocks": (BLOCK, BLOCK), "heads": (HEAD,)},
        "`blocks` and `groups` must have unique names, other than all, "
        "embeddings, dense. Received twice: 'tower'.",
    ),
    "a_group_named_all": (
        {"blocks": (BLOCK,), "heads": (HEAD,), "groups": {"all": ("a",)}},
        "`blocks` and `groups` must have unique names, other than all, "
        "embeddings, dense. Received twice: 'all'.",
    ),
    "heads_of_one_name": (
        {"blocks": (BLOCK,), "heads": (HEAD, HEAD)},
        "`heads` must have unique names. Received twice: 'click'. Give one a `name`.",
    ),
}


@pytest.mark.parametrize(("values", "message"), _ERRORS.values(), ids=list(_ERRORS))
def test_errors_of_models(values, message):
    with pytest.raises(ValueError) as caught:
        spec.ModelSpec(**values)
    assert str(caught.value) == message


def test_errors_of_blocks_and_heads():
    with pytest.raises(ValueError, match=r"^`inputs` must name at least one input\."):
        spec.BlockSpec(name="a", inputs=())
    with pytest.raises(TypeError, match=r"Received: inputs='all'\. Put it in a tuple"):
        spec.BlockSpec(name="a", inputs="all")
    with pytest.raises(ValueError, match=r"^`layer` must be set with `args` or "):
        spec.BlockSpec(name="a", inputs=("all",), args={"units": 3})
    with pytest.raises(ValueError, match=r"^`layer` must be set with `args` or "):
        spec.BlockSpec(name="a", inputs=("all",), join="none")
    with pytest.raises(ValueError, match=r"not be negative\. Received: weight=-1\.0"):
        spec.HeadSpec(label="click", inputs=("a",), weight=-1.0)
    with pytest.raises(ValueError, match=r"of a `log_loss`\. .*='rate', loss='mse'"):
        spec.HeadSpec(label="click", inputs=("a",), loss="mse", sample_rate="rate")


@pytest.mark.parametrize("path", spec.BUILT_IN.values())
def test_registered_models_can_be_made(path):
    class_ = imports.load_name(path, "model.name")
    assert issubclass(class_, base.Model)
    assert dataclasses.is_dataclass(class_.Params)
