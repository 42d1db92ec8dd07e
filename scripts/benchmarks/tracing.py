"""CPU seconds of tracing and the first step of many tables, each in a new process.

    scripts/bench tracing [--rounds 3] [--json FILE]

The store's tables all have different widths, so none can share arrays. The layers are
trained by `train_on_batch`, ours against `tf_keras.layers.Embedding`.
"""

import statistics
import subprocess
import sys
import time

from sides import options
from sides import report

_CASES = (
    ("store, 10 widths, 4 shards", ("store", "10", "4")),
    ("store, 100 widths, 1 shard", ("store", "100", "1")),
    ("store, 100 widths, 4 shards", ("store", "100", "4")),
    ("20 Keras layers", ("layers", "20", "ours")),
    ("20 Keras layers, tf_keras", ("layers", "20", "tf_keras")),
)
_TIMEOUT_SECS = 1200


def main() -> None:
    """Runs the benchmark, or one of its cases."""
    if sys.argv[1:2] == ["case"]:
        _, _, kind, count, how = sys.argv
        print((store if kind == "store" else layers)(int(count), how))
        return
    parser = options.parser(__doc__, rounds=3, write=None)
    arguments = parser.parse_args()
    print(f"{report.machine()}; medians of {arguments.rounds} processes.", flush=True)
    found: dict[str, list[float]] = {name: [] for name, _ in _CASES}
    for _ in range(arguments.rounds):
        for name, case in _CASES:
            found[name].append(_measured(case))
    rows = [[name, f"{statistics.median(secs):.2f}"] for name, secs in found.items()]
    print(report.table(["trace and first step of", "CPU s"], rows))
    report.write_json(arguments.json)


def _measured(case: tuple[str, ...]) -> float:
    done = subprocess.run(
        [sys.executable, __file__, "case", *case],
        capture_output=True,
        text=True,
        check=True,
        timeout=_TIMEOUT_SECS,
    )
    return float(done.stdout)


def store(num_tables: int, num_shards: str) -> float:
    """Returns the CPU seconds of a store's first step."""
    import tensorflow as tf

    from monolith_tf.embedding.placement import Placement
    from monolith_tf.embedding.spec import ColumnSpec
    from monolith_tf.embedding.spec import TableSpec
    from monolith_tf.embedding.store import EmbeddingStore

    tables = [TableSpec(name=f"t{i}", slot=i, dim=4 + i) for i in range(num_tables)]
    columns = [ColumnSpec(feature=table.name, table=table.name) for table in tables]
    placement = Placement(num_shards=int(num_shards))
    embeddings = EmbeddingStore(tables, columns, placement=placement)
    step_number = tf.Variable(0, dtype=tf.int64)

    @tf.function
    def step(ids: tf.Tensor) -> None:
        of_tables = {table.name: ids + (table.slot << 48) for table in tables}
        pulled = embeddings.lookup(of_tables, training=True, step=step_number)
        with tf.GradientTape() as tape:
            tape.watch(pulled.rows)
            found = tf.nest.flatten(embeddings.combine(pulled))
            loss = tf.add_n([tf.reduce_sum(values) for values in found])
        gradients = tape.gradient(loss, pulled.rows)
        embeddings.apply_gradients(pulled, gradients, step_number)

    ids = tf.range(256, dtype=tf.int64)
    begin = time.process_time()
    step(ids)
    return time.process_time() - begin


def layers(count: int, of: str) -> float:
    """Returns the CPU seconds of a model's first `train_on_batch`."""
    import numpy as np
    import tf_keras

    from monolith_tf import embedding

    def layer() -> tf_keras.layers.Layer:
        if of == "tf_keras":
            return tf_keras.layers.Embedding(1000, 8)
        return embedding.Embedding(8)

    inputs = [tf_keras.Input([1], dtype="int64") for _ in range(count)]
    rows = tf_keras.layers.Concatenate()([layer()(keys) for keys in inputs])
    logits = tf_keras.layers.Dense(1)(tf_keras.layers.Flatten()(rows))
    model = tf_keras.Model(inputs, logits)
    model.compile("adam", "mse")
    keys = [np.random.default_rng(i).integers(1000, size=[64, 1]) for i in range(count)]
    begin = time.process_time()
    model.train_on_batch(keys, np.zeros([64, 1], np.float32))
    return time.process_time() - begin


if __name__ == "__main__":
    main()
