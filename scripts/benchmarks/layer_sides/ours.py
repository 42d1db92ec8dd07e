"""This project's layers."""

import tensorflow as tf
from layer_sides import sizes as to
from layer_sides.case import Case
from layer_sides.case import with_training

from monolith_tf import layers


def _names(sizes: to.Sizes) -> list[str]:
    return [f"feature{i}" for i in range(sizes.features)]


def _din(layer, inputs, training):
    query, keys, lengths = inputs
    mask = tf.sequence_mask(lengths[:, 0], keys.shape[1])
    return layer([query, keys], mask=mask)


def _grad_norm(layer, x, training):
    losses = [tf.reduce_mean(tf.square(x)), tf.reduce_mean(tf.sin(x))]
    return layer(losses, x)


CASES = {
    "AGRUCell": Case(lambda s: layers.AGRUCell(s.dim, "AUGRU"), "step"),
    "AddBias": Case(lambda s: layers.AddBias(), "stack"),
    "AllInt": Case(lambda s: layers.AllInt(8), "stack"),
    "AutoInt": Case(lambda s: layers.AutoInt(1), "stack"),
    "AvgPooling": Case(lambda s: layers.AvgPooling(), "list"),
    "BatchNorm": Case(lambda s: layers.BatchNorm(epsilon=1e-3), "flat", with_training),
    "CAN": Case(lambda s: layers.CAN(2), "co-action"),
    "CDot": Case(lambda s: layers.CDot(4, [32]), "stack"),
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
    "DIEN": Case(lambda s: layers.DIEN(s.dim, "AUGRU"), "target"),
    "DIN": Case(lambda s: layers.DIN([*to.DIN_UNITS, 1], "relu"), "valid target", _din),
    "DMR_U2I": Case(lambda s: layers.DMR_U2I(s.dim), "target"),
    "Dense": Case(lambda s: layers.Dense(to.UNITS[0], "relu"), "flat"),
    "DotInteraction": Case(lambda s: layers.DotInteraction(), "list"),
    "DotInteraction, not gathered": Case(
        lambda s: layers.DotInteraction(skip_gather=True), "list"
    ),
    "Dropout": Case(lambda s: layers.Dropout(0.5), "flat", with_training),
    "FeatureCross": Case(lambda s: layers.FeatureCross(), "flat"),
    "FeatureCross, projected": Case(lambda s: layers.FeatureCross(to.RANK), "flat"),
    "GradNorm": Case(lambda s: layers.GradNorm(["a", "b"]), "flat", _grad_norm),
    "GroupInt": Case(lambda s: layers.GroupInt(), "halves"),
    "GroupInt dot": Case(lambda s: layers.GroupInt("dot"), "halves"),
    "GroupInt attention": Case(
        lambda s: layers.GroupInt(use_attention=True, attention_units=[8, 1]), "halves"
    ),
    "LHUCTower": Case(lambda s: layers.LHUCTower(to.UNITS), "flat", with_training),
    "LayerNorm": Case(lambda s: layers.LayerNorm(), "stack"),
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
    "MaxPooling": Case(lambda s: layers.MaxPooling(), "list"),
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
    "SimpleNasLayer": Case(
        lambda s: layers.SimpleNasLayer(_names(s), [s.dim] * s.features),
        "flat",
        with_training,
    ),
    "SimpleNasV2Layer": Case(
        lambda s: layers.SimpleNasV2Layer(_names(s), [s.dim] * s.features),
        "flat",
        with_training,
    ),
    "SumPooling": Case(lambda s: layers.SumPooling(), "list"),
    "iRazor": Case(lambda s: layers.iRazor([0, s.dim // 2, s.dim]), "stack"),
    **{
        name: Case(lambda s, name=name: getattr(layers, name)(), "flat")
        for name, module in layers.NAMES.items()
        if module == "activation_layers"
    },
}
