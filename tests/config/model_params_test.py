"""Checks of a registered model's parameters and of what exports name."""

import dataclasses
import pathlib

import pytest

from monolith_tf import config as config_lib
from monolith_tf.config import checks
from monolith_tf.models import spec as models

DATA = pathlib.Path(__file__).parent / "testdata"
DCN = (DATA / "dcn.yaml").read_text()
ASSEMBLED = (DATA / "assembled.yaml").read_text()
TWO_TOWER = (
    "model={name: two_tower, params: {label: click, user_features: [user_id], "
    "item_features: [item_id, price], item: item_id}}"
)


def errors_of(text, *overrides):
    with pytest.raises(config_lib.ConfigError) as caught:
        config_lib.parse_config(text, "x.yaml", overrides, data="ignored")
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "model.params.label=clik",
            "`model.params.label`: there is no label `clik`. Did you mean `click`?",
        ),
        (
            "model.params.hiden_units=[8]",
            "`model.params.hiden_units`: unknown key. Did you mean `hidden_units`?",
        ),
        (
            "model.params.hidden_units=8",
            "`model.params.hidden_units`: must be a list. Received: 8. Put it in "
            "brackets, `[...]`.",
        ),
        (
            "model.params.hidden_units=[8, wide]",
            "`model.params.hidden_units[1]`: must be a whole number. Received: 'wide'.",
        ),
        (
            "model.params.num_cross_layers=true",
            "`model.params.num_cross_layers`: must be a whole number. Received: true.",
        ),
        (
            "model.params.dropout=.nan",
            "`model.params.dropout`: must be finite. Received: nan.",
        ),
        (
            "model.params.dropout=1",
            "`model.params.dropout`: `dropout` must be in [0, 1). Received: "
            "dropout=1.0.",
        ),
        (
            "model.params.hidden_units=[64, 0]",
            "`model.params.hidden_units`: `hidden_units` must be at least 1. Received: "
            "hidden_units=(64, 0).",
        ),
        ("model=dcn", "`model.params`: the key `label` is missing."),
        (
            "model={name: mmoe, params: {tasks: [click, clik]}}",
            "`model.params.tasks[1]`: there is no label `clik`. Did you mean `click`?",
        ),
        (
            "model={name: final_mlp, params: {label: click, contexts: [user, price]}}",
            "`model.params.contexts[0]`: there is no feature `user`. Did you mean "
            "`user_id`?\ncommand line: `model.params.contexts[1]`: must name a feature "
            "with ids. Received: `price`, which is dense.",
        ),
        (
            "model={name: fibinet, params: {label: click}}",
            "`model.params.linear`: the table `user` has no slice `linear`. Known: "
            "`vec`.",
        ),
        (
            TWO_TOWER.replace("item: item_id", "item: itm_id"),
            "`model.params.item`: there is no feature `itm_id`. Did you mean "
            "`item_id`?",
        ),
    ],
)
def test_parameters_of_registered_models(override, message):
    expected = f"command line: {message}".splitlines()
    assert errors_of(DCN, override) == expected


def test_a_parameters_line_is_named():
    wrong = DCN.replace("label: click", "label: clik")
    line = 1 + wrong[: wrong.index("label: clik")].count("\n")
    message = "`model.params.label`: there is no label `clik`. Did you mean `click`?"
    assert errors_of(wrong) == [f"x.yaml:{line}: {message}"]


def test_a_config_made_in_python_is_checked_too():
    good = config_lib.parse_config(DCN, data="ignored")
    params = {"label": "click", "hidden_units": (8, 4)}
    model = models.ModelSpec(name="dcn", params=params)
    checks.check_config(dataclasses.replace(good, model=model), data="ignored")


@pytest.mark.parametrize(
    ("text", "override", "message"),
    [
        (
            DCN,
            "export.classify=[click, clik]",
            "`export.classify[1]`: the model has no head `clik`. Did you mean `click`?",
        ),
        (
            DCN,
            "export.regress=[click, click]",
            "`export.regress[1]`: duplicate name `click`.",
        ),
        (
            ASSEMBLED,
            "export.output_signatures=[clicks]",
            "`export.output_signatures[0]`: the model has no output `clicks`. Did you "
            "mean `click`?",
        ),
        (
            DCN,
            "export.user_features=[user_id, histry]",
            "`export.user_features[1]`: there is no feature `histry`. Did you mean "
            "`history`?",
        ),
        (
            DCN,
            "export.user_features=[user_id, history, item_id, price]",
            "`export.user_features`: must leave a feature to the items. Received: all "
            "of ['user_id', 'history', 'item_id', 'price'].",
        ),
    ],
)
def test_names_in_exports(text, override, message):
    assert errors_of(text, override) == [f"command line: {message}"]


def test_outputs_beside_the_heads_may_be_named():
    config = config_lib.parse_config(
        DCN,
        overrides=[
            TWO_TOWER,
            "export.output_signatures=[user_embedding, click]",
            "export.user_features=[user_id]",
        ],
        data="ignored",
    )
    assert config.export.output_signatures == ("user_embedding", "click")


def test_heads_of_a_class_of_ones_own_are_not_known():
    override = "model={class: 'my_model:MyModel', params: {label: anything}}"
    config = config_lib.parse_config(
        DCN, overrides=[override, "export.classify=[anything]"], data="ignored"
    )
    assert config.export.classify == ("anything",)


def test_metrics_are_those_of_the_registered_models_heads():
    more = [
        "labels=[click, buy]",
        "data.eval=eval.parquet",
        "trainer.eval_every_steps=10",
    ]
    config = config_lib.parse_config(
        DCN, overrides=[*more, "trainer.keep_best=auc"], data="ignored"
    )
    assert config.trainer.keep_best == "auc"
    (error,) = errors_of(DCN, *more, "trainer.keep_best=buy/auc")
    assert "there is no metric `buy/auc` in evaluations." in error
