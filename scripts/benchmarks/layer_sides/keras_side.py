"""Layers of `tf_keras`."""

import tf_keras
from layer_sides import sizes as to
from layer_sides.case import Case
from layer_sides.case import with_training

keras = tf_keras.layers


def _load(layer, weights):
    layer.set_weights(weights)


CASES = {
    "AvgPooling": Case(lambda s: keras.Average(), "list"),
    "BatchNorm": Case(
        lambda s: keras.BatchNormalization(), "flat", with_training, load=_load
    ),
    "Dense": Case(lambda s: keras.Dense(to.UNITS[0], "relu"), "flat", load=_load),
    "Dropout": Case(
        lambda s: keras.Dropout(0.5),
        "flat",
        with_training,
        same=False,
        remark="draws other numbers",
    ),
    "LayerNorm": Case(
        lambda s: keras.LayerNormalization(epsilon=1e-6), "stack", load=_load
    ),
    "MaxPooling": Case(lambda s: keras.Maximum(), "list"),
    "SumPooling": Case(lambda s: keras.Add(), "list"),
}
