"""Tests of row optimizers as data."""

import copy
import dataclasses
import typing

import pydantic
import tf_keras
from absl.testing import parameterized

from monolith_tf import schedules
from monolith_tf import testing
from monolith_tf.embedding import optimizer_spec

# The defaults that are promised to users.
DEFAULTS = {
    "sgd": {"learning_rate": 0.01, "momentum": 0.0, "nesterov": False},
    "adagrad": {
        "learning_rate": 0.001,
        "initial_accumulator_value": 0.1,
        "epsilon": 1e-7,
    },
    "rowwise_adagrad": {
        "learning_rate": 0.05,
        "initial_accumulator_value": 0.0,
        "epsilon": 1e-8,
    },
    "group_adagrad": {
        "learning_rate": 0.01,
        "initial_accumulator_value": 0.1,
        "beta": 0.0,
        "l2": 0.0,
    },
    "adadelta": {"learning_rate": 0.001, "rho": 0.95, "epsilon": 1e-7},
    "adam": {"learning_rate": 0.001, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7},
    "amsgrad": {"learning_rate": 0.01, "beta_1": 0.9, "beta_2": 0.99, "epsilon": 0.01},
    "momentum": {"learning_rate": 0.01, "momentum": 0.9, "nesterov": False},
    "moving_average": {"learning_rate": 1.0, "momentum": 0.9},
    "rmsprop": {"learning_rate": 0.001, "rho": 0.9, "epsilon": 1e-7},
    "rmsprop_v2": {"learning_rate": 0.01, "rho": 0.9, "epsilon": 1.0},
    "ftrl": {
        "learning_rate": 0.001,
        "initial_accumulator_value": 0.1,
        "beta": 0.0,
        "l1": 0.0,
        "l2": 0.0,
    },
    "group_ftrl": {
        "learning_rate": 0.01,
        "initial_accumulator_value": 0.0,
        "beta": 1.0,
        "l1": 0.0,
        "l2": 0.0,
    },
    "lion": {"learning_rate": 1e-4, "beta_1": 0.9, "beta_2": 0.99},
    "batch_softmax": {"learning_rate": 0.1},
    "monolith_adagrad": {
        "learning_rate": 0.05,
        "initial_accumulator_value": 0.1,
        "epsilon": 0.0,
    },
    "monolith_adadelta": {"learning_rate": 0.01, "rho": 0.9, "epsilon": 0.01},
    "monolith_adam": {
        "learning_rate": 0.01,
        "beta_1": 0.9,
        "beta_2": 0.99,
        "epsilon": 0.01,
    },
    "monolith_rmsprop": {"learning_rate": 0.01, "rho": 0.9, "epsilon": 1.0},
    "monolith_ftrl": {
        "learning_rate": 0.01,
        "initial_accumulator_value": 0.1,
        "beta": 0.0,
        "l1": 0.0,
        "l2": 0.0,
    },
}


def load(value):
    adapter = pydantic.TypeAdapter(optimizer_spec.RowOptimizerSpec)
    return adapter.validate_python(value)


class OptimizerSpecTest(testing.TestCase):
    def test_every_optimizer_of_the_union_has_its_defaults(self):
        union = typing.get_args(typing.get_args(optimizer_spec.RowOptimizerSpec)[0])
        found = {}
        for cls in union:
            fields = dataclasses.asdict(cls())
            self.assertEqual(fields.pop("weight_decay"), 0.0)
            found[fields.pop("name")] = fields
        self.assertEqual(found, DEFAULTS)

    @parameterized.parameters(
        ("sgd", "SGD"),
        ("adagrad", "Adagrad"),
        ("adadelta", "Adadelta"),
        ("adam", "Adam"),
        ("rmsprop", "RMSprop"),
        ("ftrl", "Ftrl"),
        ("lion", "Lion"),
    )
    def test_names_of_keras_have_its_defaults(self, name, theirs):
        config = getattr(tf_keras.optimizers, theirs)().get_config()
        ours = dataclasses.asdict(optimizer_spec.row_optimizer(name))
        for key in ("l1", "l2"):
            if key in ours:
                ours[f"{key}_regularization_strength"] = ours.pop(key)
        self.assertEqual(ours.pop("name"), name)
        self.assertEqual(ours.pop("weight_decay"), config.pop("weight_decay") or 0.0)
        for key, value in ours.items():
            self.assertAlmostEqual(config[key], value, msg=key)

    def test_a_spec_knows_what_was_written_out(self):
        written = {"name", "epsilon"}
        for spec in (
            load({"name": "adam", "epsilon": 1e-7}),
            optimizer_spec.row_optimizer("adam", epsilon=1e-7),
        ):
            self.assertEqual(spec.given, written)
        self.assertEqual(optimizer_spec.AdamSpec(epsilon=1e-7).given, {"epsilon"})
        self.assertEqual(load("adam").given, {"name"})
        self.assertEqual(copy.deepcopy(load("adam")).given, {"name"})
        self.assertEqual(load(optimizer_spec.AdamSpec()).given, set())

    def test_sgd_with_momentum_is_momentum(self):
        momentum = optimizer_spec.SgdSpec(momentum=0.9, nesterov=True)
        self.assertEqual(momentum.kind, "momentum_nesterov")
        self.assertEqual(optimizer_spec.SgdSpec(momentum=0.9).kind, "momentum")
        self.assertEqual(optimizer_spec.SgdSpec(nesterov=True).kind, "sgd")

    def test_config_gives_a_name_or_a_mapping(self):
        self.assertEqual(load("adagrad"), optimizer_spec.AdagradSpec())
        self.assertEqual(
            load({"name": "ftrl", "learning_rate": 0.5, "l1": 1}),
            optimizer_spec.FtrlSpec(learning_rate=0.5, l1=1.0),
        )

    def test_learning_rate_may_be_a_schedule(self):
        rate = {"name": "cosine", "decay_steps": 10}
        self.assertEqual(
            load({"name": "adam", "learning_rate": rate}).learning_rate,
            schedules.ScheduleSpec(**rate),
        )

    def test_row_optimizer_names_a_spec(self):
        self.assertEqual(
            optimizer_spec.row_optimizer("momentum", nesterov=True),
            optimizer_spec.MomentumSpec(nesterov=True),
        )

    @parameterized.parameters(
        ("adagra", r"'adagra' found .* expected tags: 'sgd', 'adagrad'"),
        (
            {"name": "adam", "learning_rat": 1.0},
            r"adam\.learning_rat\n +Unexpected keyword",
        ),
        (
            {"name": "adam", "beta_1": 1.0},
            r"`beta_1` must be in \[0, 1\)\. Received: beta_1=1\.0\.",
        ),
    )
    def test_config_names_what_is_wrong(self, value, message):
        with self.assertRaisesRegex(pydantic.ValidationError, message):
            load(value)

    @parameterized.parameters(
        ("sgd", {"learning_rate": -1.0}, r"not negative.*learning_rate=-1\.0"),
        ("sgd", {"learning_rate": float("nan")}, r"finite.*learning_rate=nan"),
        ("sgd", {"weight_decay": float("inf")}, r"finite.*weight_decay=inf"),
        ("adadelta", {"rho": 1.0}, r"`rho` must be in \[0, 1\).*rho=1\.0"),
        ("momentum", {"momentum": -0.1}, r"`momentum` must be in .*momentum=-0\.1"),
        (
            "adagrad",
            {"initial_accumulator_value": 0.0, "epsilon": 0.0},
            r"`initial_accumulator_value` or `epsilon` must be above 0.*"
            r"initial_accumulator_value=0\.0, epsilon=0\.0",
        ),
        ("rowwise_adagrad", {"epsilon": 0.0}, "must be above 0"),
        ("group_adagrad", {"initial_accumulator_value": 0.0}, "must be above 0"),
        ("group_ftrl", {"beta": 0.0}, "`beta` or `l2` must be above 0"),
        ("ftrl", {"initial_accumulator_value": 0.0}, "must be above 0"),
        ("adam", {"epsilon": 0.0}, "`epsilon` must be above 0"),
        ("amsgrad", {"epsilon": 0.0}, "`epsilon` must be above 0"),
        ("adadelta", {"epsilon": 0.0}, "`epsilon` must be above 0"),
        ("rmsprop", {"epsilon": 0.0}, "`epsilon` must be above 0"),
        ("rmsprop_v2", {"epsilon": 0.0}, "`epsilon` must be above 0"),
        ("ftrl", {"learning_rate": 0.0}, r"must stay above 0\. .*learning_rate=0\.0"),
    )
    def test_rejects_numbers_that_cannot_train(self, name, numbers, message):
        with self.assertRaisesRegex(ValueError, message):
            optimizer_spec.row_optimizer(name, **numbers)

    @parameterized.parameters(
        {"name": "cosine", "decay_steps": 9},
        {"name": "polynomial", "decay_steps": 9},
        {"name": "piecewise", "boundaries": (3,), "values": (0.1, 0.0)},
        {"name": "constant", "learning_rate": 0.0},
    )
    def test_ftrl_rejects_schedules_that_reach_zero(self, **schedule):
        rate = schedules.ScheduleSpec(**schedule)
        for cls in (optimizer_spec.FtrlSpec, optimizer_spec.GroupFtrlSpec):
            with self.assertRaisesRegex(ValueError, "Give a schedule a positive end"):
                cls(learning_rate=rate)
        optimizer_spec.AdagradSpec(learning_rate=rate)

    def test_ftrl_takes_schedules_that_stay_positive(self):
        for rate in (
            schedules.ScheduleSpec(name="exponential", decay_steps=9),
            schedules.ScheduleSpec(name="cosine", end_learning_rate=1e-4),
            schedules.ScheduleSpec(warmup_steps=10),
        ):
            self.assertEqual(
                optimizer_spec.FtrlSpec(learning_rate=rate).learning_rate, rate
            )
