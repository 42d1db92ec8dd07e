"""Neural collaborative filtering in plain Keras, over tables without a vocabulary.

    python examples/ncf.py --train train.parquet --test test.parquet --model neumf

The training file has a row for each interaction, with columns `user` and `item`. The
test file has one for each user, with columns `user`, `positive_item` (held out of
training) and `negative_items` (a list of items the user has not seen). The script
prints HR@10 and NDCG@10 after every epoch.

Users and items may be any 64-bit integers: `Embedding` makes a row for each new one,
where `tf_keras.layers.Embedding` needs to know their number.

Source: He et al., "Neural Collaborative Filtering", WWW 2017 (arXiv:1708.05031).
"""

import argparse
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import tf_keras

import monolith_tf as mt

# As in the paper; the default row optimizer divides small gradients by much more.
ADAM = {
    "name": "monolith_adam",
    "learning_rate": 1e-3,
    "beta_2": 0.999,
    "epsilon": 1e-7,
}


def gmf(latent_dim: int = 8, optimizer: Any = ADAM) -> tf_keras.Model:
    """Generalized matrix factorization: sigmoid((user * item) @ w + b)."""
    users, items = _inputs()
    user = _embedding("user_embedding", latent_dim, optimizer)(users)
    item = _embedding("item_embedding", latent_dim, optimizer)(items)
    return _model([users, items], tf_keras.layers.Multiply()([user, item]))


def mlp(
    layers: Sequence[int] = (64, 32, 16, 8), optimizer: Any = ADAM
) -> tf_keras.Model:
    """A perceptron over both embeddings, each half as wide as `layers[0]`."""
    users, items = _inputs()
    user = _embedding("user_embedding", layers[0] // 2, optimizer)(users)
    item = _embedding("item_embedding", layers[0] // 2, optimizer)(items)
    return _model([users, items], _tower([user, item], layers))


def neumf(
    mf_dim: int = 8,
    layers: Sequence[int] = (64, 32, 16, 8),
    optimizer: Any = ADAM,
) -> tf_keras.Model:
    """Both of the above with separate embeddings, joined under one output."""
    users, items = _inputs()
    widths = {"mf": mf_dim, "mlp": layers[0] // 2}
    rows = {
        f"{part}_{side}": _embedding(f"{part}_embedding_{side}", width, optimizer)(ids)
        for part, width in widths.items()
        for side, ids in (("user", users), ("item", items))
    }
    product = tf_keras.layers.Multiply()([rows["mf_user"], rows["mf_item"]])
    tower = _tower([rows["mlp_user"], rows["mlp_item"]], layers)
    return _model([users, items], tf_keras.layers.Concatenate()([product, tower]))


def sample(
    interactions: Mapping[str, np.ndarray],
    num_negatives: int,
    rng: np.random.Generator,
) -> tuple[list[np.ndarray], np.ndarray]:
    """Draws an epoch: each interaction, and items the user has not interacted with.

    Args:
      interactions: `user` and `item`, `[n]` each.
      num_negatives: Items drawn for each interaction.
      rng: The generator to draw with.

    Returns:
      Users and items, `[n * (1 + num_negatives), 1]` each, and labels, 1 or 0, in
      random order.
    """
    users, items = (np.asarray(interactions[name]) for name in ("user", "item"))
    known_users, user_numbers = np.unique(users, return_inverse=True)
    known_items, item_numbers = np.unique(items, return_inverse=True)
    num_items = len(known_items)
    seen = np.unique(user_numbers * num_items + item_numbers)
    if len(seen) and np.bincount(seen // num_items).max() == num_items:
        raise ValueError("A user has interacted with every item: nothing to draw.")
    negative_users = np.repeat(user_numbers, num_negatives)
    negative_items = rng.integers(num_items, size=len(negative_users))
    while True:
        again = np.isin(negative_users * num_items + negative_items, seen)
        if not again.any():
            break
        negative_items[again] = rng.integers(num_items, size=again.sum())
    all_users = np.concatenate([users, known_users[negative_users]])
    all_items = np.concatenate([items, known_items[negative_items]])
    labels = (np.arange(len(all_users)) < len(users)).astype(np.float32)
    order = rng.permutation(len(labels))
    inputs = [all_users[order, np.newaxis], all_items[order, np.newaxis]]
    return inputs, labels[order, np.newaxis]


def evaluate(model: tf_keras.Model, test: Mapping[str, Any]) -> tuple[float, float]:
    """Ranks each user's held-out item among the sampled ones.

    Args:
      model: A model of users and items.
      test: `user` and `positive_item`, `[users]`, and `negative_items`, `[users, n]`.

    Returns:
      HR@10 and NDCG@10.
    """
    positives = np.asarray(test["positive_item"])[:, np.newaxis]
    items = np.concatenate([positives, np.asarray(test["negative_items"])], axis=1)
    users = np.repeat(np.asarray(test["user"]), items.shape[1])
    inputs = [users[:, np.newaxis], items.reshape(-1, 1)]
    scores = model.predict(inputs, batch_size=1 << 14, verbose=0)
    ranks = mt.metrics.leave_one_out_ranks(scores.reshape(items.shape), items)
    gains = np.where(ranks < 10, np.log(2) / np.log(ranks + 2), 0.0)
    return float(np.mean(ranks < 10)), float(np.mean(gains))


def train(
    model: tf_keras.Model,
    interactions: Mapping[str, np.ndarray],
    *,
    epochs: int,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    num_negatives: int = 4,
    seed: int = 0,
    after_epoch: Callable[[int, float], None] = lambda epoch, loss: None,
) -> None:
    """Trains on the interactions with fresh negatives in every epoch."""
    rng = np.random.default_rng(seed)
    model.compile(tf_keras.optimizers.Adam(learning_rate), "binary_crossentropy")
    for epoch in range(epochs):
        inputs, labels = sample(interactions, num_negatives, rng)
        history = model.fit(
            inputs, labels, batch_size=batch_size, shuffle=False, verbose=0
        )
        after_epoch(epoch, history.history["loss"][0])


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains a model and prints its ranking metrics."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", required=True, help="Parquet file of interactions")
    parser.add_argument("--test", required=True, help="Parquet file of held-out items")
    parser.add_argument("--model", choices=sorted(MODELS), default="neumf")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    table = pq.read_table(options.train, columns=["user", "item"])
    interactions = {name: table[name].to_numpy() for name in ("user", "item")}
    test = pq.read_table(options.test).to_pydict()
    tf_keras.utils.set_random_seed(options.seed)
    model = MODELS[options.model]()

    def show(epoch: int, loss: float) -> None:
        hit_rate, ndcg = evaluate(model, test)
        print(
            f"epoch {epoch} | loss {loss:.4f} | HR@10 {hit_rate:.4f} | NDCG {ndcg:.4f}"
        )

    train(
        model,
        interactions,
        epochs=options.epochs,
        seed=options.seed,
        after_epoch=show,
    )


def _inputs() -> list[Any]:
    return [
        tf_keras.Input([1], dtype="int64", name=name)
        for name in ("user_input", "item_input")
    ]


def _embedding(name: str, dim: int, optimizer: Any) -> Callable[[Any], Any]:
    table = mt.embedding.Embedding(
        dim,
        embeddings_initializer={"name": "normal", "stddev": 0.01},
        optimizer=optimizer,
        name=name,
    )
    return lambda ids: tf_keras.layers.Flatten()(table(ids))


def _tower(embeddings: list[Any], layers: Sequence[int]) -> Any:
    x = tf_keras.layers.Concatenate()(embeddings)
    for i, units in enumerate(layers[1:], start=1):
        x = tf_keras.layers.Dense(units, activation="relu", name=f"layer{i}")(x)
    return x


def _model(inputs: list[Any], x: Any) -> tf_keras.Model:
    output = tf_keras.layers.Dense(
        1, "sigmoid", kernel_initializer="lecun_uniform", name="prediction"
    )
    return tf_keras.Model(inputs, output(x))


MODELS = {"gmf": gmf, "mlp": mlp, "neumf": neumf}

if __name__ == "__main__":
    main()
