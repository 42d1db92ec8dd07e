"""Writes the results of architecture searches to the log and to TensorBoard."""

from absl import logging

from monolith_tf.training import actions
from monolith_tf.training import architecture
from monolith_tf.training import run as run_lib


class ArchitectureLog(actions.EverySteps):
    """Writes a line for every search layer, and its histograms.

    `metrics.jsonl` gets a record of the phase `search` with the number of columns that
    each layer would keep of each feature; TensorBoard gets the layer's own summaries.
    """

    def __init__(self, every: int) -> None:
        super().__init__(every, at_end=True)

    def work(self, run: run_lib.Run) -> None:
        """See base class."""
        step, model = run.progress.step, run.step.network.model
        for layer in architecture.searching_layers(model):
            logging.info(
                "search | step: %d | %s | %s", step, layer.name, layer.summary_line()
            )
            with run.recorder.summaries("search", step):
                layer.write_summaries(step)
        kept = {
            f"{layer}/{feature}/selected_size": size["kept"]
            for layer, features in architecture.describe(model).items()
            for feature, size in features.items()
        }
        run.recorder.log.append("search", step, kept)
