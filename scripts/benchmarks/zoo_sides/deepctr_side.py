"""DeepCTR's DCN with matrices, by `Model.fit` on arrays in memory."""

import importlib.metadata

import numpy as np
import tensorflow as tf
import tf_keras
from deepctr import feature_column
from deepctr import models
from zoo_sides import case as case_lib


class Side(case_lib.Trainer):
    """The model; `fit` shuffles the rows."""

    def __init__(self, case: str) -> None:
        super().__init__(case)
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        case = self._case
        columns = [
            feature_column.SparseFeat(name, size, case.dim)
            for name, size in zip(case.features, self._data.sizes, strict=True)
        ]
        self._model = models.DCN(
            [],
            columns,
            cross_num=case.cross_layers,
            cross_parameterization="matrix",
            dnn_hidden_units=case.units,
            l2_reg_embedding=case.l2 / 2,  # Its penalty has no factor of 1/2.
            l2_reg_cross=0,
            dnn_dropout=case.dropout,
            dnn_use_bn=True,
        )
        for layer in self._model.layers:
            for norm in getattr(layer, "bn_layers", ()):  # It has no argument for it.
                norm.momentum, norm.epsilon = case.momentum, case.epsilon
        optimizer = tf_keras.optimizers.Adam(
            case.learning_rate,
            epsilon=case.adam_epsilon,
            global_clipnorm=case.clip_norm,
        )
        self._model.compile(optimizer, "binary_crossentropy")

    def versions(self) -> dict:
        return {"DeepCTR": importlib.metadata.version("deepctr")}

    def parameters(self) -> int:
        return sum(int(tf.size(x)) for x in self._model.trainable_variables)

    def _columns(self, examples: case_lib.Examples) -> dict[str, np.ndarray]:
        return dict(zip(self._case.features, examples.ids.T, strict=True))

    def epoch(self) -> None:
        train = self._data.train
        self._model.fit(self._columns(train), train.labels, self._case.batch, verbose=0)

    def predict(self, give: str) -> None:
        columns = self._columns(self._data.eval)
        found = self._model.predict(columns, self._case.batch, verbose=0)
        np.save(give, found[:, 0])
