"""This project's layers: those of `_CASES`, and the examples of all others."""

import dataclasses
import inspect

import numpy as np
import tensorflow as tf
from layer_sides import sizes as to
from layer_sides.case import Case
from layer_sides.case import with_training

from monolith_tf import layers
from monolith_tf.layers.parts import base
from monolith_tf.testing import nests


def _names(sizes: to.Sizes) -> list[str]:
    return [f"feature{i}" for i in range(sizes.features)]


def _din(layer, inputs, training):
    query, keys, lengths = inputs
    mask = tf.sequence_mask(lengths[:, 0], keys.shape[1])
    return layer([query, keys], mask=mask)


def _grad_norm(layer, x, training):
    losses = [tf.reduce_mean(tf.square(x)), tf.reduce_mean(tf.sin(x))]
    return layer(losses, x)


# Compared with another library, or at sizes of their own; the layer's name comes first.
_CASES = {
    "AutoInt": Case(lambda s: layers.AutoInt(1), "stack"),
    "BatchNorm": Case(lambda s: layers.BatchNorm(epsilon=1e-3), "flat", with_training),
    "CAN": Case(lambda s: layers.CAN(2), "co-action"),
    "CIN": Case(lambda s: layers.CIN(to.CIN_MAPS), "stack"),
    "CIN relu": Case(lambda s: layers.CIN(to.CIN_MAPS, "relu"), "stack"),
    "DCN vector": Case(lambda s: layers.DCN(2, "vector"), "flat"),
    "DCN matrix": Case(lambda s: layers.DCN(2, "matrix"), "flat"),
    "DCN mixed": Case(
        lambda s: layers.DCN(
            1, "mixed", num_experts=to.EXPERTS, low_rank=to.MIXED_RANK
        ),
        "flat",
    ),
    "DIN": Case(lambda s: layers.DIN([*to.DIN_UNITS, 1], "relu"), "valid target", _din),
    "Dense": Case(lambda s: layers.Dense(to.UNITS[0], "relu"), "flat"),
    "DotInteraction": Case(lambda s: layers.DotInteraction(), "list"),
    "DotInteraction, not gathered": Case(
        lambda s: layers.DotInteraction(skip_gather=True), "list"
    ),
    "FeatureCross": Case(lambda s: layers.FeatureCross(), "flat"),
    "FeatureCross, projected": Case(lambda s: layers.FeatureCross(to.RANK), "flat"),
    "GradNorm": Case(lambda s: layers.GradNorm(["a", "b"]), "flat", _grad_norm),
    "GroupInt": Case(lambda s: layers.GroupInt(), "halves"),
    "GroupInt dot": Case(lambda s: layers.GroupInt("dot"), "halves"),
    "GroupInt attention": Case(
        lambda s: layers.GroupInt(use_attention=True, attention_units=[8, 1]), "halves"
    ),
    "LHUCTower": Case(lambda s: layers.LHUCTower(to.UNITS), "flat", with_training),
    "LogitCorrection": Case(
        lambda s: layers.LogitCorrection(sample_bias=True), "logits"
    ),
    "MLP": Case(
        lambda s: layers.MLP(
            to.UNITS, activations=["relu"] * len(to.UNITS), use_weight_norm=False
        ),
        "flat",
        with_training,
    ),
    "MLP, weight norm": Case(
        lambda s: layers.MLP(to.UNITS, activations=["relu"] * len(to.UNITS)),
        "flat",
        with_training,
    ),
    "MMoE": Case(
        lambda s: layers.MMoE(2, [64, 32], num_experts=to.EXPERTS),
        "flat",
        with_training,
    ),
    "MixedNASLayer": Case(
        lambda s: layers.MixedNASLayer(
            [[0, s.dim // 2, s.dim]] * s.features,
            _names(s),
            embedding_share_mode="left",
        ),
        "flat",
        with_training,
    ),
    "NASGatingLayer": Case(
        lambda s: layers.NASGatingLayer(_names(s), [s.dim] * s.features),
        "flat",
        with_training,
    ),
    "SNR": Case(lambda s: layers.SNR(2, 64), "flat", with_training),
    "SeNet": Case(
        lambda s: layers.SeNet(s.features, max(1, s.features // 3), out_type=None),
        "list",
    ),
    "iRazor": Case(lambda s: layers.iRazor([0, s.dim // 2, s.dim]), "stack"),
}


def _example(name: str) -> Case:
    """Returns the case of a layer's `example`."""

    def made(sizes):
        return getattr(layers, name).example(base.Sizes(**dataclasses.asdict(sizes)))

    def inputs(sizes):
        rng = np.random.default_rng(0)
        return nests.map_shapes(
            lambda shape: rng.normal(size=shape).astype("float32"), made(sizes)[1]
        )

    return Case(lambda sizes: made(sizes)[0], inputs, _call)


def _call(layer, inputs, training):
    arguments = inputs if isinstance(inputs, tuple) else (inputs,)
    if "training" in inspect.signature(layer.call).parameters:
        return layer(*arguments, training=training)
    return layer(*arguments)


_HERE = {name.split()[0].strip(",") for name in _CASES}
CASES = _CASES | {name: _example(name) for name in layers.LAYERS if name not in _HERE}
