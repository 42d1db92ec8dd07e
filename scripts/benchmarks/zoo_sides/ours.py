"""This project: the config's job, from the files, in its own loop."""

import numpy as np
import tensorflow as tf
from cluster_sides import ours
from zoo_sides import case as case_lib

from monolith_tf import config as config_lib
from monolith_tf.experiment import build
from monolith_tf.training import evaluation


class Side(case_lib.Trainer):
    """A job, without actions between its steps."""

    def __init__(self, case: str) -> None:
        super().__init__(case)
        overrides = [
            f"model_dir={self._case.folder}/model",
            f"data.train={self._case.train}",
            f"data.eval={self._case.eval}",
            f"data.batch_size={self._case.batch}",
            "trainer.threads=1",
            "trainer.summaries=false",
        ]
        config = config_lib.load_config(self._case.config, overrides)
        self._job = build.Job(config)
        self._source = self._job.source("train")
        self._trainer = ours.Ours(self._job, None, None, overlaps=False)

    def versions(self) -> dict:
        return {"tensorflow": tf.__version__}

    def parameters(self) -> int:
        variables = self._trainer.network.model.trainable_variables
        rows = sum(self._data.sizes) * self._case.dim
        return rows + sum(int(tf.size(variable)) for variable in variables)

    def epoch(self) -> None:
        self._trainer.run(self._source.batches_per_epoch())

    def predict(self, give: str) -> None:
        dataset = self._job.source("eval").dataset(string_codes=True)
        found = evaluation.predict(self._trainer.network, dataset)
        np.save(give, np.concatenate([batch[self._case.label] for batch in found]))
