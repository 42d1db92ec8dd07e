"""The description of training: steps, intervals, dense optimizer, early stopping."""

import dataclasses
from typing import Annotated
from typing import Any
from typing import Literal

from monolith_tf import imports
from monolith_tf import paths
from monolith_tf import schedules
from monolith_tf.features.shorthand import FromName
from monolith_tf.features.shorthand import OneOrMany
from monolith_tf.training.checkpoint_spec import CheckpointSpec

_OPTIMIZER_DEFAULTS: dict[str, dict[str, Any]] = {
    "adam": {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7},
    "adamw": {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7, "weight_decay": 0.004},
    "adagrad": {"initial_accumulator_value": 0.1, "epsilon": 1e-7},
    "sgd": {},
    "momentum": {"momentum": 0.9, "nesterov": False},
    "rmsprop": {"rho": 0.9, "epsilon": 1e-7},
    "ftrl": {"initial_accumulator_value": 0.1, "l1": 0.0, "l2": 0.0},
    "lion": {"beta_1": 0.9, "beta_2": 0.99},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DenseOptimizerSpec(FromName):
    """The optimizer of the dense variables.

    In a config file, an optimizer without arguments may be written as only its name.
    An argument that the named optimizer does not have is None; setting it is an error.
    The defaults are those of `tf_keras.optimizers`.

    Attributes:
      name: Which optimizer; `momentum` is SGD with momentum.
      learning_rate: A constant rate, or a schedule over the global step.
      beta_1: Decay of the first moment, in [0, 1); adam, adamw and lion, 0.9.
      beta_2: Decay of the second moment, in [0, 1); adam and adamw, 0.999; lion, 0.99.
      epsilon: Added to the denominator; adam, adamw, adagrad and rmsprop, 1e-7.
      weight_decay: Decoupled weight decay per step, times the rate; adamw, 0.004.
      initial_accumulator_value: First sum of squares; adagrad and ftrl, 0.1.
      momentum: Share of the last update that is kept, in [0, 1); momentum, 0.9.
      nesterov: Whether to use Nesterov momentum; momentum, false.
      rho: Decay of the mean square, in [0, 1); rmsprop, 0.9.
      l1: Strength of the L1 penalty; ftrl, 0.
      l2: Strength of the L2 penalty; ftrl, 0.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    name: Literal[
        "adam", "adamw", "adagrad", "sgd", "momentum", "rmsprop", "ftrl", "lion"
    ] = "adam"
    learning_rate: float | schedules.ScheduleSpec = 0.001
    beta_1: float | None = None
    beta_2: float | None = None
    epsilon: float | None = None
    weight_decay: float | None = None
    initial_accumulator_value: float | None = None
    momentum: float | None = None
    nesterov: bool | None = None
    rho: float | None = None
    l1: float | None = None
    l2: float | None = None

    def __post_init__(self) -> None:
        if self.name not in _OPTIMIZER_DEFAULTS:
            raise ValueError(
                f"`name` must be one of {', '.join(_OPTIMIZER_DEFAULTS)}. "
                f"Received: name={self.name!r}."
            )
        defaults = _OPTIMIZER_DEFAULTS[self.name]
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in ("name", "learning_rate"):
                continue
            if value is None:
                object.__setattr__(self, field.name, defaults.get(field.name))
            elif field.name not in defaults:
                known = ", ".join(f"`{name}`" for name in ("learning_rate", *defaults))
                raise ValueError(
                    f"`{field.name}` is not an argument of the optimizer {self.name}. "
                    f"Received: {field.name}={value}. It takes {known}."
                )
            elif value < 0:
                raise ValueError(
                    f"`{field.name}` must not be negative. "
                    f"Received: {field.name}={value}."
                )
            elif field.name in ("beta_1", "beta_2", "momentum", "rho") and value >= 1:
                raise ValueError(
                    f"`{field.name}` must be below 1. Received: {field.name}={value}."
                )
        rate = self.learning_rate
        if not isinstance(rate, schedules.ScheduleSpec) and rate < 0:
            raise ValueError(
                f"`learning_rate` must not be negative. Received: learning_rate={rate}."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EarlyStopSpec:
    """Stops training when a metric of the evaluations stops improving.

    Attributes:
      metric: `label/metric`, such as `click/auc`; only the metric if there is one
        label; or `loss`.
      mode: Whether the metric should rise or fall; `auto` decides by its name.
      patience: Evaluations in a row without a better value after which training ends,
        at least 1.
      min_delta: Least difference that counts as better.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    metric: str
    mode: Literal["auto", "max", "min"] = "auto"
    patience: int = 1
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        if self.patience < 1:
            raise ValueError(
                f"`patience` must be at least 1. Received: patience={self.patience}."
            )
        if self.min_delta < 0:
            raise ValueError(
                "`min_delta` must not be negative. "
                f"Received: min_delta={self.min_delta}."
            )

    @property
    def rises(self) -> bool:
        """Whether a greater value of the metric is better."""
        return rises(self.metric) if self.mode == "auto" else self.mode == "max"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlateauSpec(EarlyStopSpec):
    """Lowers all learning rates when a metric of the evaluations stops improving.

    These are the rates of dense variables and of rows; schedules are scaled.

    Attributes:
      patience: Evaluations in a row without a better value after which rates are
        lowered, and lowered again after as many more; at least 1.
      factor: Multiplies the rates, above 0 and below 1.
    """

    factor: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.factor < 1:
            raise ValueError(
                f"`factor` must be above 0 and below 1. Received: factor={self.factor}."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainerSpec:
    """How a model is trained, and what happens between steps.

    An interval of None switches its action off.

    Attributes:
      mode: `batch` only trains. `progressive` reads the data once, in its order, and
        scores each batch before it trains on it: evaluations during training then
        cover exactly the batches since the previous one.
      max_steps: Global step at which training ends; None for no limit.
      epochs: Passes over the training data; None for no limit, but 1 if `max_steps` is
        also None. With both, training ends at whichever comes first. A job that resumes
        with other train files counts its passes over these from 0.
      steps_per_loop: Most steps in one call of TensorFlow, at least 1. More steps have
        less overhead each; actions between steps are on time in any case.
      log_every_steps: Steps between log lines and lines of `metrics.jsonl`.
      summaries: Whether TensorBoard gets the same numbers as `metrics.jsonl`.
      eval_every_steps: Steps between evaluations.
      eval_window_secs: In progressive training on a topic: length of the windows of
        event time whose rows are scored together, in place of `eval_every_steps`. With
        neither, windows have 60 seconds.
      eval_lateness_secs: Seconds of event time by which a row may come after later ones
        and is still scored in its window.
      eval_every_epochs: Epochs between evaluations, each at the end of an epoch. With
        both, evaluations run at all of these steps.
      checkpoint: How often checkpoints are written, whole ones and deltas. One is also
        written when training ends or is interrupted. A job on a topic that sets none of
        these keys writes a whole one every hour, and a delta every minute.
      checkpoint_every_steps: Steps between whole checkpoints.
      checkpoint_every_secs: Seconds between whole checkpoints.
      keep_checkpoints: Newest checkpoints to keep, at least 1, deltas counted. Those
        that a kept delta needs stay as well.
      keep_best: Metric, named as in `early_stop`, by which the best checkpoint is kept
        in addition; None keeps none. If the evaluation data changes, the best value
        starts over.
      early_stop: When to stop before the end; None never does.
      reduce_on_plateau: When to lower the learning rates; None never does.
      optimizer: The optimizer of dense variables, if the model has none.
      clip_norm: Bound on the global norm over the gradients of dense variables and
        embedding rows together; None does not clip.
      deterministic: Whether two runs with the same seed agree bit for bit, even across
        a kill and a resume; costs some speed.
      warm_start: Other jobs' `model_dir`s or checkpoints from which values are restored
        at step 0: tables by name, the model's variables by path and shape. If several
        have the same one, the last is used.
      drop_tables: Tables in a job's checkpoint that its config no longer names, whose
        rows are dropped when it resumes.
      actions: Your own actions that run between steps, each as `module:Name`.
      threads: Threads that one operation may use; None takes all cores.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    mode: Literal["batch", "progressive"] = "batch"
    max_steps: int | None = None
    epochs: int | None = None
    steps_per_loop: int = 50
    log_every_steps: int = 100
    summaries: bool = True
    eval_every_steps: int | None = None
    eval_every_epochs: int | None = None
    eval_window_secs: float | None = None
    eval_lateness_secs: float = 10.0
    checkpoint: CheckpointSpec = CheckpointSpec()  # noqa: RUF009 (frozen)
    checkpoint_every_steps: int | None = None
    checkpoint_every_secs: float | None = None
    keep_checkpoints: int = 5
    keep_best: str | None = None
    early_stop: EarlyStopSpec | None = None
    reduce_on_plateau: PlateauSpec | None = None
    optimizer: DenseOptimizerSpec = DenseOptimizerSpec()
    clip_norm: float | None = None
    deterministic: bool = False
    warm_start: Annotated[tuple[str, ...], OneOrMany()] = ()
    drop_tables: Annotated[tuple[str, ...], OneOrMany()] = ()
    actions: Annotated[tuple[str, ...], OneOrMany()] = ()
    threads: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.warm_start, str):
            object.__setattr__(self, "warm_start", (self.warm_start,))
        if isinstance(self.drop_tables, str):
            object.__setattr__(self, "drop_tables", (self.drop_tables,))
        for path in self.warm_start:
            paths.check("warm_start", path)
        is_progressive = self.mode == "progressive"
        if self.epochs is None and (is_progressive or self.max_steps is None):
            object.__setattr__(self, "epochs", 1)
        for name in (
            "max_steps",
            "epochs",
            "steps_per_loop",
            "log_every_steps",
            "eval_every_steps",
            "eval_every_epochs",
            "checkpoint_every_steps",
            "keep_checkpoints",
            "threads",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(
                    f"`{name}` must be at least 1. Received: {name}={value}."
                )
        for name in ("checkpoint_every_secs", "eval_window_secs", "clip_norm"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(
                    f"`{name}` must be greater than 0. Received: {name}={value}. "
                    "Leave it out to switch it off."
                )
        for name in ("checkpoint_every_steps", "checkpoint_every_secs"):
            value = getattr(self, name)
            if value is not None and self.checkpoint.full_every is not None:
                raise ValueError(
                    f"`{name}` and `checkpoint.full_every` are the same setting. "
                    f"Received: {name}={value}, "
                    f"full_every={self.checkpoint.full_every!r}. Remove one of them."
                )
        for action in self.actions:
            if not imports.is_name(action):
                raise ValueError(
                    "`actions` must have the form `package.module:Name`. "
                    f"Received: {action!r}."
                )
        if is_progressive and self.epochs != 1:
            raise ValueError(
                "`epochs` must be 1 if `mode` is progressive: rows are scored before "
                "they are trained on. "
                f"Received: epochs={self.epochs}. Leave it out."
            )
        if self.eval_lateness_secs < 0:
            raise ValueError(
                "`eval_lateness_secs` must not be negative. "
                f"Received: eval_lateness_secs={self.eval_lateness_secs}."
            )
        if self.eval_window_secs is not None and not is_progressive:
            raise ValueError(
                "`eval_window_secs` needs `mode: progressive`, which scores rows before"
                f" it trains on them. Received: mode={self.mode!r}."
            )
        if self.eval_window_secs is not None and self.eval_every_steps is not None:
            raise ValueError(
                "`eval_window_secs` and `eval_every_steps` are two ways to say which "
                "rows are scored together. Leave one of them out."
            )
        watched = (self.early_stop, self.keep_best, self.reduce_on_plateau)
        if (
            any(watched)
            and not is_progressive
            and self.eval_every_steps is None
            and self.eval_every_epochs is None
        ):
            raise ValueError(
                "`early_stop`, `keep_best` and `reduce_on_plateau` need evaluations "
                "during training. Set `eval_every_steps` or `eval_every_epochs`."
            )


def rises(metric: str) -> bool:
    """Returns whether a greater value of `metric` is better.

    Args:
      metric: A metric's name, with or without `label/` in front, or `loss`.

    Raises:
      ValueError: If there is no such metric, or neither direction is better.
    """
    from monolith_tf.metrics import registry

    name = metric.rpartition("/")[2]
    return name != "loss" and registry.is_higher_better(name)
