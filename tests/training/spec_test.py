import dataclasses

import pytest

from monolith_tf import schedules
from monolith_tf.training import optimizers
from monolith_tf.training import spec

NAMES = ["adam", "adamw", "adagrad", "sgd", "momentum", "rmsprop", "ftrl", "lion"]


@pytest.mark.parametrize("name", NAMES)
def test_defaults_are_those_of_keras(name):
    given = spec.DenseOptimizerSpec(name=name)
    ours = optimizers.build(given).get_config()
    keras = type(optimizers.build(given))().get_config()
    keras["learning_rate"] = ours["learning_rate"]
    if name == "momentum":
        keras["momentum"] = 0.9
    if name == "lion":  # Keras' defaults are the paper's, as are ours.
        assert (ours["beta_1"], ours["beta_2"]) == (0.9, 0.99)
    for key in ("name", "is_legacy_optimizer", "jit_compile"):
        ours.pop(key, None)
        keras.pop(key, None)
    assert ours == pytest.approx(keras)


@pytest.mark.parametrize("name", NAMES)
def test_every_argument_is_either_filled_or_refused(name):
    filled = spec.DenseOptimizerSpec(name=name)
    for key in ("beta_1", "momentum", "rho", "l1", "weight_decay", "epsilon"):
        if getattr(filled, key) is None:
            with pytest.raises(ValueError, match=f"^`{key}` is not an argument "):
                spec.DenseOptimizerSpec(name=name, **{key: 0.5})
        else:
            made = spec.DenseOptimizerSpec(name=name, **{key: 0.5})
            assert getattr(made, key) == 0.5


def test_a_filled_spec_can_be_made_again():
    filled = spec.DenseOptimizerSpec(name="ftrl", l1=0.1)
    again = spec.DenseOptimizerSpec(**vars(filled))
    assert again == filled


_OPTIMIZER_ERRORS = {
    "name": (
        {"name": "adamx"},
        "`name` must be one of adam, adamw, adagrad, sgd, momentum, rmsprop, ftrl, "
        "lion. Received: name='adamx'.",
    ),
    "meaningless": (
        {"name": "sgd", "l1": 0.1},
        "`l1` is not an argument of the optimizer sgd. Received: l1=0.1. It takes "
        "`learning_rate`.",
    ),
    "negative": (
        {"epsilon": -1e-7},
        "`epsilon` must not be negative. Received: epsilon=-1e-07.",
    ),
    "fraction": ({"beta_1": 1.0}, "`beta_1` must be below 1. Received: beta_1=1.0."),
    "rate": (
        {"learning_rate": -1.0},
        "`learning_rate` must not be negative. Received: learning_rate=-1.0.",
    ),
}


@pytest.mark.parametrize(
    ("values", "message"), _OPTIMIZER_ERRORS.values(), ids=list(_OPTIMIZER_ERRORS)
)
def test_errors_of_optimizers(values, message):
    with pytest.raises(ValueError) as caught:
        spec.DenseOptimizerSpec(**values)
    assert str(caught.value) == message


def test_a_schedule_as_learning_rate():
    schedule = schedules.ScheduleSpec(name="cosine", decay_steps=10)
    assert spec.DenseOptimizerSpec(learning_rate=schedule).learning_rate is schedule


def test_one_epoch_where_nothing_is_said():
    assert spec.TrainerSpec().epochs == 1
    assert spec.TrainerSpec(max_steps=5).epochs is None
    assert spec.TrainerSpec(max_steps=5, epochs=2).epochs == 2


@pytest.mark.parametrize(
    "name",
    [
        "max_steps",
        "epochs",
        "steps_per_loop",
        "log_every_steps",
        "eval_every_steps",
        "eval_every_epochs",
        "checkpoint_every_steps",
        "keep_checkpoints",
        "threads",
    ],
)
def test_counts_are_at_least_one(name):
    with pytest.raises(ValueError) as caught:
        spec.TrainerSpec(**{name: 0})
    assert str(caught.value) == f"`{name}` must be at least 1. Received: {name}=0."


@pytest.mark.parametrize("name", ["checkpoint_every_secs", "clip_norm"])
def test_amounts_are_greater_than_zero(name):
    with pytest.raises(ValueError) as caught:
        spec.TrainerSpec(**{name: 0.0})
    assert str(caught.value) == (
        f"`{name}` must be greater than 0. Received: {name}=0.0. "
        "Leave it out to switch it off."
    )


def test_actions_are_names_of_classes():
    spec.TrainerSpec(actions=("my_pkg.actions:Action",))
    with pytest.raises(ValueError, match=r"`package\.module:Name`\. Received: 'a\.b'"):
        spec.TrainerSpec(actions=("a.b",))


@pytest.mark.parametrize("factor", [0.0, 1.0, -0.5])
def test_a_plateau_lowers_the_rates(factor):
    with pytest.raises(ValueError) as caught:
        spec.PlateauSpec(metric="auc", factor=factor)
    assert str(caught.value) == (
        f"`factor` must be above 0 and below 1. Received: factor={factor}."
    )


@pytest.mark.parametrize(
    "watch",
    [
        {"keep_best": "auc"},
        {"early_stop": spec.EarlyStopSpec(metric="auc")},
        {"reduce_on_plateau": spec.PlateauSpec(metric="auc")},
    ],
)
def test_what_watches_evaluations_needs_them(watch):
    spec.TrainerSpec(**watch, eval_every_steps=10)
    spec.TrainerSpec(**watch, eval_every_epochs=1)
    with pytest.raises(ValueError, match=r"^`early_stop`, `keep_best` and `reduce"):
        spec.TrainerSpec(**watch)


@pytest.mark.parametrize(
    ("metric", "mode", "expected"),
    [
        ("click/auc", "auto", True),
        ("ndcg@5", "auto", True),
        ("click/log_loss", "auto", False),
        ("loss", "auto", False),
        ("click/auc", "min", False),
        ("calibration", "max", True),
    ],
)
def test_what_is_better(metric, mode, expected):
    assert spec.EarlyStopSpec(metric=metric, mode=mode).rises is expected


def test_a_metric_whose_name_does_not_tell():
    with pytest.raises(ValueError, match="best at 1"):
        spec.rises("click/calibration")


def test_errors_of_early_stopping():
    with pytest.raises(ValueError, match=r"at least 1\. Received: patience=0\."):
        spec.EarlyStopSpec(metric="auc", patience=0)
    with pytest.raises(ValueError, match=r"negative\. Received: min_delta=-0\.1\."):
        spec.EarlyStopSpec(metric="auc", min_delta=-0.1)


def test_progressive_training_is_one_epoch():
    given = {"mode": "progressive", "eval_every_steps": 5}
    assert spec.TrainerSpec(**given).epochs == 1
    assert spec.TrainerSpec(max_steps=9, **given).epochs == 1
    with pytest.raises(ValueError, match=r"`epochs` must be 1 .*=2\. Leave it out"):
        spec.TrainerSpec(epochs=2, **given)


def test_windows_of_event_time_are_of_progressive_training():
    spec.TrainerSpec(mode="progressive", eval_window_secs=60)
    with pytest.raises(
        ValueError, match="`eval_window_secs` needs `mode: progressive`"
    ):
        spec.TrainerSpec(eval_window_secs=60)
    with pytest.raises(ValueError, match="Leave one of them out"):
        spec.TrainerSpec(mode="progressive", eval_window_secs=60, eval_every_steps=5)
    with pytest.raises(ValueError, match="`eval_window_secs` must be greater than 0"):
        spec.TrainerSpec(mode="progressive", eval_window_secs=0)
    with pytest.raises(ValueError, match="`eval_lateness_secs` must not be negative"):
        spec.TrainerSpec(mode="progressive", eval_lateness_secs=-1)


def test_bounds_themselves_are_allowed():
    spec.DenseOptimizerSpec(learning_rate=0.0, beta_1=0.0, epsilon=0.0)
    spec.EarlyStopSpec(metric="auc", patience=1, min_delta=0.0)
    counts = ("max_steps", "epochs", "steps_per_loop", "log_every_steps")
    counts += ("eval_every_steps", "eval_every_epochs", "checkpoint_every_steps")
    counts += ("keep_checkpoints", "threads")
    for name in counts:
        assert getattr(spec.TrainerSpec(**{name: 1}), name) == 1
    for name in ("checkpoint_every_secs", "clip_norm"):
        assert getattr(spec.TrainerSpec(**{name: 0.5}), name) == 0.5


@pytest.mark.parametrize(
    ("name", "key"),
    [("adam", "beta_2"), ("momentum", "momentum"), ("rmsprop", "rho")],
)
def test_shares_are_below_one(name, key):
    spec.DenseOptimizerSpec(name=name, **{key: 0.99})
    with pytest.raises(ValueError, match=f"^`{key}` must be below 1. Received"):
        spec.DenseOptimizerSpec(name=name, **{key: 1.0})


def test_other_values_may_be_above_one():
    assert spec.DenseOptimizerSpec(name="ftrl", l1=2.0).l1 == 2.0
    assert spec.DenseOptimizerSpec(epsilon=1.5).epsilon == 1.5


def test_the_defaults():
    plain = dataclasses.asdict(spec.TrainerSpec())
    assert plain.pop("optimizer")["name"] == "adam"
    not_none = {key: value for key, value in plain.items() if value is not None}
    assert not_none == {
        "mode": "batch",
        "epochs": 1,
        "steps_per_loop": 50,
        "log_every_steps": 100,
        "summaries": True,
        "eval_lateness_secs": 10.0,
        "checkpoint": {"full_every": None, "delta_every": None},
        "keep_checkpoints": 5,
        "deterministic": False,
        "warm_start": (),
        "drop_tables": (),
        "actions": (),
    }
    assert dataclasses.asdict(spec.PlateauSpec(metric="auc")) == {
        "metric": "auc",
        "mode": "auto",
        "patience": 1,
        "min_delta": 0.0,
        "factor": 0.1,
    }
    assert spec.DenseOptimizerSpec().learning_rate == 0.001


@pytest.mark.parametrize(
    "kind", [spec.TrainerSpec, spec.DenseOptimizerSpec, spec.EarlyStopSpec]
)
def test_fields_are_given_by_name_and_stay(kind):
    with pytest.raises(TypeError, match="positional"):
        kind("adam")
    made = kind(**({"metric": "auc"} if kind is spec.EarlyStopSpec else {}))
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.mode = "max"


def test_a_plateau_counts_as_early_stopping_does():
    with pytest.raises(ValueError, match="patience=0"):
        spec.PlateauSpec(metric="auc", patience=0)


def test_one_warm_start_needs_no_list():
    assert spec.TrainerSpec(warm_start="job").warm_start == ("job",)
    with pytest.raises(ValueError, match="warm_start"):
        spec.TrainerSpec(warm_start=("job", "gs://bucket/job"))


@pytest.mark.parametrize("name", ["my-pkg:Action", "pkg:", ":Action", "pkg:A.b", "1:A"])
def test_names_that_are_no_classes(name):
    with pytest.raises(ValueError, match="`actions` must have the form"):
        spec.TrainerSpec(actions=("pkg:Action", name))
