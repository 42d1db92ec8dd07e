"""Layers of keras-rs, which is Keras 3 on TensorFlow."""

import keras_rs
from layer_sides import sizes as to
from layer_sides.case import Case


def _load(layer, weights):
    layer.set_weights(weights)


CASES = {
    "FeatureCross": Case(lambda s: keras_rs.layers.FeatureCross(), "flat", load=_load),
    "FeatureCross, projected": Case(
        lambda s: keras_rs.layers.FeatureCross(to.RANK), "flat", load=_load
    ),
    "DotInteraction": Case(lambda s: keras_rs.layers.DotInteraction(), "list"),
    "DotInteraction, not gathered": Case(
        lambda s: keras_rs.layers.DotInteraction(skip_gather=True), "list"
    ),
}
