"""The models of neural collaborative filtering, built from Keras layers.

The models predict the probability of an interaction from a user id and an item id. They
are functional Keras models with the inputs `user_input` and `item_input`, int32 of
shape `[batch, 1]`, and the output `prediction`, `[batch, 1]`. They are usually compiled
with Adam and `binary_crossentropy`, and trained with four sampled negatives per
positive.

Source: He et al., "Neural Collaborative Filtering", WWW 2017 (arXiv:1708.05031).

Example:
  >>> model = neumf(num_users=100, num_items=50)
  >>> model.compile("adam", "binary_crossentropy")
  >>> model([tf.zeros([4, 1], tf.int32), tf.zeros([4, 1], tf.int32)]).shape
  TensorShape([4, 1])
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tf_keras

from monolith_tf.layers.parts import base
from monolith_tf.types import Tensor

_LAYERS = (64, 32, 16, 8)


def gmf(
    num_users: int,
    num_items: int,
    latent_dim: int = 8,
    regs: Sequence[float] = (0.0, 0.0),
) -> tf_keras.Model:
    """Returns a generalized matrix factorization.

        y = sigmoid((user_embedding * item_embedding) @ w + b)

    Args:
      num_users: Number of users, at least 1; ids are below it.
      num_items: Number of items, at least 1.
      latent_dim: Width of the embeddings, at least 1.
      regs: L2 penalties of the user and the item embeddings.

    Raises:
      ValueError: If an argument is out of range.
    """
    base.require_positive("latent_dim", latent_dim)
    _check_length("regs", regs, 2)
    users, items = _inputs()
    user = _embedding(users, "user_embedding", num_users, latent_dim, regs[0])
    item = _embedding(items, "item_embedding", num_items, latent_dim, regs[1])
    product = tf_keras.layers.Multiply(name="product")([user, item])
    return _model([users, items], product, "gmf")


def mlp(
    num_users: int,
    num_items: int,
    layers: Sequence[int] = _LAYERS,
    reg_layers: Sequence[float] | None = None,
) -> tf_keras.Model:
    """Returns a multi-layer perceptron over both embeddings.

        x = [user_embedding | item_embedding]
        x = relu(x @ w_i + b_i)                              # layer1, layer2, ...
        y = sigmoid(x @ w + b)

    Args:
      num_users: Number of users, at least 1; ids are below it.
      num_items: Number of items, at least 1.
      layers: Width of the concatenated embeddings, an even number, and then of each
        layer.
      reg_layers: L2 penalties: one for both embeddings, then one for each layer's
        kernel; None for none.

    Raises:
      ValueError: If an argument is out of range.
    """
    users, items = _inputs()
    user, item = _mlp_embeddings(
        users, items, num_users, num_items, layers, reg_layers, "{}_embedding"
    )
    return _model([users, items], _tower(user, item, layers, reg_layers), "mlp")


def neumf(
    num_users: int,
    num_items: int,
    mf_dim: int = 8,
    layers: Sequence[int] = _LAYERS,
    reg_layers: Sequence[float] | None = None,
    reg_mf: float = 0.0,
) -> tf_keras.Model:
    """Returns a neural matrix factorization: `gmf` and `mlp` with one output.

        y = sigmoid([mf_user * mf_item | tower of mlp] @ w + b)

    Args:
      num_users: Number of users, at least 1; ids are below it.
      num_items: Number of items, at least 1.
      mf_dim: Width of the factorization's embeddings, at least 1.
      layers: See `mlp`.
      reg_layers: See `mlp`.
      reg_mf: L2 penalty of the factorization's embeddings.

    Raises:
      ValueError: If an argument is out of range.
    """
    base.require_positive("mf_dim", mf_dim)
    users, items = _inputs()
    mf_user = _embedding(users, "mf_embedding_user", num_users, mf_dim, reg_mf)
    mf_item = _embedding(items, "mf_embedding_item", num_items, mf_dim, reg_mf)
    user, item = _mlp_embeddings(
        users, items, num_users, num_items, layers, reg_layers, "mlp_embedding_{}"
    )
    product = tf_keras.layers.Multiply(name="product")([mf_user, mf_item])
    tower = _tower(user, item, layers, reg_layers)
    joined = tf_keras.layers.Concatenate(name="mf_and_mlp")([product, tower])
    return _model([users, items], joined, "neumf")


def load_pretrained(
    model: tf_keras.Model,
    gmf_model: tf_keras.Model,
    mlp_model: tf_keras.Model,
    alpha: float = 0.5,
) -> tf_keras.Model:
    """Initializes a `neumf` model from a trained `gmf` and a trained `mlp` model.

        kernel = [alpha * gmf kernel ; (1 - alpha) * mlp kernel]
        bias   = alpha * gmf bias + (1 - alpha) * mlp bias

    The embeddings and the hidden layers are copied.

    Args:
      model: The model to change.
      gmf_model: A model of `gmf` with the same numbers of ids and `latent_dim=mf_dim`.
      mlp_model: A model of `mlp` with the same numbers of ids and the same `layers`.
      alpha: Share of the factorization in the output, from 0 to 1.

    Returns:
      The model.

    Raises:
      ValueError: If `alpha` is out of range or the models' shapes differ.
    """
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"`alpha` must be from 0 to 1. Received: alpha={alpha}.")
    copies = [
        ("mf_embedding_user", gmf_model, "user_embedding"),
        ("mf_embedding_item", gmf_model, "item_embedding"),
        ("mlp_embedding_user", mlp_model, "user_embedding"),
        ("mlp_embedding_item", mlp_model, "item_embedding"),
    ]
    hidden = [x.name for x in model.layers if isinstance(x, tf_keras.layers.Dense)]
    copies += [(name, mlp_model, name) for name in hidden if name != "prediction"]
    weights = [(name, source.get_layer(old)) for name, source, old in copies]
    for name, source in weights:
        _set_weights(model.get_layer(name), source.get_weights())
    gmf_kernel, gmf_bias = gmf_model.get_layer("prediction").get_weights()
    mlp_kernel, mlp_bias = mlp_model.get_layer("prediction").get_weights()
    kernel = np.concatenate([alpha * gmf_kernel, (1.0 - alpha) * mlp_kernel])
    bias = alpha * gmf_bias + (1.0 - alpha) * mlp_bias
    _set_weights(model.get_layer("prediction"), [kernel, bias])
    return model


def _inputs() -> list[Tensor]:
    """Returns the symbolic ids of users and items."""
    return [
        tf_keras.Input([1], dtype=tf.int32, name=name)
        for name in ("user_input", "item_input")
    ]


def _embedding(ids: Tensor, name: str, rows: int, width: int, penalty: float) -> Tensor:
    """Looks up one embedding per example, `[batch, width]`."""
    base.require_positive("num_users" if "user" in name else "num_items", rows)
    table = tf_keras.layers.Embedding(
        rows,
        width,
        embeddings_initializer=tf_keras.initializers.RandomNormal(stddev=0.01),
        embeddings_regularizer=_l2(penalty),
        name=name,
    )
    return tf_keras.layers.Flatten(name=f"flat_{name}")(table(ids))


def _mlp_embeddings(
    users: Tensor,
    items: Tensor,
    num_users: int,
    num_items: int,
    layers: Sequence[int],
    reg_layers: Sequence[float] | None,
    name: str,
) -> list[Tensor]:
    """Looks up both embeddings of an MLP, each half as wide as its input."""
    for width in layers:
        base.require_positive("layers", width)
    if not layers or layers[0] % 2:
        raise ValueError(
            "`layers` must start with an even width, that of both embeddings together. "
            f"Received: layers={list(layers)}."
        )
    if reg_layers is not None:
        _check_length("reg_layers", reg_layers, len(layers))
    penalty, width = reg_layers[0] if reg_layers else 0.0, layers[0] // 2
    return [
        _embedding(users, name.format("user"), num_users, width, penalty),
        _embedding(items, name.format("item"), num_items, width, penalty),
    ]


def _tower(
    user: Tensor,
    item: Tensor,
    layers: Sequence[int],
    reg_layers: Sequence[float] | None,
) -> tf_keras.Model:
    """Applies the hidden layers of an MLP."""
    x = tf_keras.layers.Concatenate(name="user_and_item")([user, item])
    for i, units in enumerate(layers[1:], start=1):
        x = tf_keras.layers.Dense(
            units,
            activation="relu",
            kernel_regularizer=_l2(reg_layers[i] if reg_layers else 0.0),
            name=f"layer{i}",
        )(x)
    return x


def _model(inputs: list[Tensor], x: Tensor, name: str) -> tf_keras.Model:
    """Returns a model with a probability as its output."""
    outputs = tf_keras.layers.Dense(
        1,
        activation="sigmoid",
        kernel_initializer="lecun_uniform",
        name="prediction",
    )(x)
    return tf_keras.Model(inputs, outputs, name=name)


def _l2(penalty: float) -> tf_keras.regularizers.Regularizer | None:
    return tf_keras.regularizers.L2(penalty) if penalty else None


def _set_weights(layer: tf_keras.layers.Layer, values: list[np.ndarray]) -> None:
    """Sets a layer's weights; `ValueError` that names it if shapes differ."""
    shapes = [tuple(value.shape) for value in values]
    expected = [tuple(w.shape) for w in layer.weights]
    if shapes != expected:
        raise ValueError(
            f"`model` must have the shapes of the models it starts from. Received: "
            f"{expected} in layer `{layer.name}` for pre-trained {shapes}."
        )
    layer.set_weights(values)


def _check_length(name: str, values: Sequence[float], length: int) -> None:
    if len(values) != length:
        raise ValueError(
            f"`{name}` must have {length} entries. Received: {name}={list(values)}."
        )
