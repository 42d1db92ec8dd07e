"""CIN and SeNet with all gradients in NumPy, by their definitions."""

import numpy as np
from fused_sides.case import Case

ROWS = 256  # of the batch at a time, as all products are in memory


def training(case: Case, x, weights, upstream) -> list[np.ndarray]:
    """Returns the output and the gradients of `x` and the weights, in float64."""
    function = senet if case.operation == "senet" else cin
    x, upstream, *weights = (np.float64(a) for a in (x, upstream, *weights))
    found = [
        function(x[i : i + ROWS], weights, upstream[i : i + ROWS])
        for i in range(0, case.batch, ROWS)
    ]
    y, dx, *of_weights = zip(*found, strict=True)
    return [*map(np.concatenate, (y, dx)), *(sum(parts) for parts in of_weights)]


def senet(x, weights, upstream) -> list[np.ndarray]:
    """Computes `functional.senet`."""
    w1, b1, w2, b2 = weights
    squeezed = x.mean(axis=2)
    hidden = np.maximum(squeezed @ w1 + b1, 0)
    gates = 1 / (1 + np.exp(-(hidden @ w2 + b2)))
    of_logits = (upstream * x).sum(axis=2) * gates * (1 - gates)
    of_hidden = of_logits @ w2.T * (hidden > 0)
    dx = upstream * gates[..., None] + (of_hidden @ w1.T)[..., None] / x.shape[2]
    of_weights = [squeezed.T @ of_hidden, of_hidden.sum(0)]
    of_weights += [hidden.T @ of_logits, of_logits.sum(0)]
    return [x * gates[..., None], dx, *of_weights]


def cin(x0, weights, upstream) -> list[np.ndarray]:
    """Computes `functional.cin` with ReLU."""
    layers = len(weights) // 2
    kernels, biases = weights[:layers], weights[layers:]
    maps, products = [x0], []
    for i, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
        pairs = maps[-1][:, :, None] * x0[:, None]  # [batch, maps, fields, dim]
        products.append(pairs.reshape(len(x0), -1, x0.shape[2]))
        y = kernel.T @ products[-1] + bias[:, None]
        maps.append(y if i == layers - 1 else np.maximum(y, 0))
    pooled = np.concatenate([y.sum(axis=2) for y in maps[1:]], axis=1)
    of_pooled = np.split(upstream, np.cumsum([len(b) for b in biases])[:-1], axis=1)
    dx, dx0 = np.zeros_like(maps[-1]), np.zeros_like(x0)
    of_kernels, of_biases = [], []
    for i in reversed(range(layers)):
        dy = dx + of_pooled[i][..., None]
        if i < layers - 1:
            dy = dy * (maps[i + 1] > 0)
        of_kernels.append(np.einsum("bpd,bod->po", products[i], dy, optimize=True))
        of_biases.append(dy.sum(axis=(0, 2)))
        of_pairs = (kernels[i] @ dy).reshape(len(x0), -1, *x0.shape[1:])
        dx = (of_pairs * x0[:, None]).sum(axis=2)
        dx0 += (of_pairs * maps[i][:, :, None]).sum(axis=1)
    return [pooled, dx + dx0, *of_kernels[::-1], *of_biases[::-1]]
