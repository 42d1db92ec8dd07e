"""Layers of TensorFlow Recommenders."""

import tensorflow_recommenders as tfrs
from layer_sides import sizes as to
from layer_sides.case import Case

interaction = tfrs.layers.feature_interaction


def _load(layer, weights):
    layer.set_weights(weights)


CASES = {
    "FeatureCross": Case(lambda s: tfrs.layers.dcn.Cross(), "flat", load=_load),
    "FeatureCross, projected": Case(
        lambda s: tfrs.layers.dcn.Cross(to.RANK), "flat", load=_load
    ),
    "DotInteraction": Case(lambda s: interaction.DotInteraction(), "list"),
    "DotInteraction, not gathered": Case(
        lambda s: interaction.DotInteraction(skip_gather=True), "list"
    ),
}
