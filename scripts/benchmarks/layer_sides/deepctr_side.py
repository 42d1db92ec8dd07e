"""Layers of DeepCTR."""

import numpy as np
from deepctr.layers import core
from deepctr.layers import interaction
from deepctr.layers import normalization
from deepctr.layers import sequence
from layer_sides import sizes as to
from layer_sides.case import Case
from layer_sides.case import with_training


def _cin(layer, weights):
    """Its rows are ordered by field, then the last layer's map; ours the reverse."""
    fields = layer.field_nums[0]
    for i, (kernel, bias) in enumerate(zip(weights[::2], weights[1::2], strict=True)):
        units = kernel.shape[1]
        kernel = kernel.reshape(-1, fields, units).transpose(1, 0, 2)
        layer.filters[i].assign(kernel.reshape(1, -1, units))
        layer.bias[i].assign(bias)


def _cross_net(layer, weights):
    for i, (kernel, bias) in enumerate(zip(weights[::2], weights[1::2], strict=True)):
        layer.kernels[i].assign(kernel if kernel.shape[1] == 1 else kernel.T)
        layer.bias[i].assign(bias[:, np.newaxis])


def _cross_net_mix(layer, weights):
    *kernels, bias = weights
    layer.U_list[0].assign(kernels[0::4])
    layer.V_list[0].assign(kernels[1::4])
    layer.C_list[0].assign([kernel.T for kernel in kernels[2::4]])
    for gate, kernel in zip(layer.gating, kernels[3::4], strict=True):
        gate.set_weights([kernel])
    layer.bias[0].assign(bias[:, np.newaxis])


def _dnn(layer, weights):
    for i, (kernel, bias) in enumerate(zip(weights[::2], weights[1::2], strict=True)):
        layer.kernels[i].assign(kernel)
        layer.bias[i].assign(bias)


def _attention(layer, weights):
    """Ours: kernel, norm and bias of each layer; the initial norm is the kernel's."""
    plain = [weight for i, weight in enumerate(weights) if i % 3 != 1]
    *hidden, kernel, bias = plain
    _dnn(layer.local_att.dnn, hidden)
    layer.local_att.kernel.assign(kernel)
    layer.local_att.bias.assign(bias)


def _layer_norm(layer, weights):
    layer.set_weights(weights)


def _with_query_axis(inputs):
    query, keys, lengths = inputs
    return [query[:, np.newaxis], keys, lengths]


def _with_feature_axis(inputs):
    return [x[:, np.newaxis] for x in inputs]


CASES = {
    "CIN": Case(
        lambda s: interaction.CIN(to.CIN_MAPS, "linear", split_half=False, l2_reg=0),
        "stack",
        load=_cin,
    ),
    "DCN vector": Case(
        lambda s: interaction.CrossNet(2, "vector"), "flat", load=_cross_net
    ),
    "DCN matrix": Case(
        lambda s: interaction.CrossNet(2, "matrix"), "flat", load=_cross_net
    ),
    "DCN mixed": Case(
        lambda s: interaction.CrossNetMix(
            to.MIXED_RANK, num_experts=to.EXPERTS, layer_num=1
        ),
        "flat",
        load=_cross_net_mix,
    ),
    "DIN": Case(
        lambda s: sequence.AttentionSequencePoolingLayer(to.DIN_UNITS, "relu"),
        "valid target",
        with_training,
        adapt=_with_query_axis,
        load=_attention,
        remark="ours has weight norm inside",
    ),
    "LayerNorm": Case(
        lambda s: normalization.LayerNormalization(eps=1e-6), "stack", load=_layer_norm
    ),
    "MLP": Case(lambda s: core.DNN(to.UNITS), "flat", with_training, load=_dnn),
    "SeNet": Case(
        lambda s: interaction.SENETLayer(3),
        "list",
        adapt=_with_feature_axis,
        same=False,
        remark="its gate is a relu without biases, ours a sigmoid with",
    ),
}
