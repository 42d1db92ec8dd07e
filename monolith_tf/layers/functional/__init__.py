"""Layers' computations as functions of plain tensors.

`cin` and `senet` are two operations in a thousand lines, because each has a fused form
beside the short plain one. With the settings of docs/fused.md, a training step of a CIN
is 4 times (two layers) or 1.4 times (three) as fast as the papers' form, in less than a
seventh of the memory, and that of a large SeNet up to 1.4 times. Each module is needed:
`pair_products` holds the products of one block of the batch at a time and computes them
again for the gradients; `compiled` pads the batch, so that XLA compiles for few sizes,
and hides the compiled function from tapes; the gradients in `fused_cin` and
`fused_senet` are written by hand, because those that TensorFlow derives from the same
compiled forward pass cost a CIN of three layers 11 percent more memory and a SeNet 9 to
16 percent more time; `forms` selects a form by size, and the plain one for exports.
"""

from monolith_tf import _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    {
        "cin": "compressed_interaction",
        "cin_layer": "compressed_interaction",
        "cin_pooled_linear": "compressed_interaction",
        "exporting": "forms",
        "senet": "squeeze_excitation",
    },
)
