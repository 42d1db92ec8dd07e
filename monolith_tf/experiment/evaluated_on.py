"""Describes a job's evaluation data, for its checkpoints and its best value."""

from monolith_tf.config import schema
from monolith_tf.data import file_marks
from monolith_tf.data import spec as data_spec
from monolith_tf.experiment import resumed_settings
from monolith_tf.training import evaluation_set
from monolith_tf.types import JsonDict


def of(config: schema.ExperimentConfig, marks: file_marks.Marks) -> JsonDict:
    """Returns all settings that must be equal to compare metrics, as in JSON.

    Args:
      config: The config.
      marks: Marks of the eval split's files; empty if the rows come from a function, or
        if the job scores its training batches.
    """
    data, settings = config.data, resumed_settings.of(config)
    is_drawn = bool(data.validation_fraction or data.num_negatives("eval"))
    is_made = data.format == "synthetic"
    return {
        evaluation_set.FILES: list(marks),
        "trainer.mode": config.trainer.mode,
        "group_by": config.group_by,
        "labels": settings["labels"],
        "data.weight": data.weight,
        "data.validation_fraction": data.validation_fraction,
        "data.negatives": {
            **(settings["data"]["negatives"] or {}),
            "eval": data.num_negatives("eval"),
        },
        "data.num_rows": data.num_rows if is_made else None,
        "data.input_fn": data.input_fn,
        "seed": config.seed if is_drawn or is_made else None,
        **{
            f"data.{key}": list(value) if isinstance(value, tuple) else value
            for key, value in data_spec.reading_part(data).items()
        },
    }
