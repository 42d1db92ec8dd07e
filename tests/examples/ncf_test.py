"""Trains the models of `examples/ncf.py`, and loads the published weights."""

import contextlib
import importlib.util
import io
import os
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tf_keras
from absl.testing import parameterized

from monolith_tf import testing

_EXAMPLE = pathlib.Path(__file__).resolve().parents[2] / "examples" / "ncf.py"
_SPEC = importlib.util.spec_from_file_location("ncf_example", _EXAMPLE)
ncf = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(ncf)

_NUM_USERS, _NUM_ITEMS, _NUM_GROUPS = 120, 60, 4


def _data(rng):
    """Users who like the items of one group; keys use all 64 bits."""
    users = rng.integers(-(2**63), 2**63 - 1, size=_NUM_USERS)
    items = rng.integers(-(2**63), 2**63 - 1, size=_NUM_ITEMS)
    groups = [np.arange(g, _NUM_ITEMS, _NUM_GROUPS) for g in range(_NUM_GROUPS)]
    liked = [rng.permutation(groups[u % _NUM_GROUPS]) for u in range(_NUM_USERS)]
    others = [np.setdiff1d(np.arange(_NUM_ITEMS), x) for x in liked]
    interactions = {
        "user": np.repeat(users, 14),
        "item": np.concatenate([items[x[1:]] for x in liked]),
    }
    test = {
        "user": users,
        "positive_item": np.array([items[x[0]] for x in liked]),
        "negative_items": np.array([items[rng.permutation(x)[:30]] for x in others]),
    }
    return interactions, test


class NcfTest(testing.TestCase):
    @parameterized.parameters("gmf", "mlp", "neumf")
    def test_learns_what_users_like(self, name):
        tf_keras.utils.set_random_seed(1)
        interactions, test = _data(self.rng)
        model = ncf.MODELS[name](optimizer=ncf.ADAM | {"learning_rate": 0.02})
        # Keys without a row have equal scores, and ties are misses.
        self.assertEqual(ncf.evaluate(model, test), (0.0, 0.0))
        losses = []
        ncf.train(
            model,
            interactions,
            epochs=2,
            batch_size=64,
            learning_rate=0.01,
            after_epoch=lambda epoch, loss: losses.append(loss),
        )
        hit_rate, ndcg = ncf.evaluate(model, test)
        self.assertLess(losses[-1], 0.7 * losses[0])
        self.assertGreater(hit_rate, 0.9)
        self.assertGreater(ndcg, 0.9)

    def test_runs_as_a_program(self):
        interactions, test = _data(self.rng)
        folder = self.get_temp_dir()
        test["negative_items"] = test["negative_items"].tolist()
        for name, columns in (("train", interactions), ("test", test)):
            pq.write_table(pa.table(columns), f"{folder}/{name}.parquet")
        files = [f"--{n}={folder}/{n}.parquet" for n in ("train", "test")]
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            ncf.main([*files, "--model=gmf", "--epochs=1"])
        self.assertRegex(printed.getvalue(), r"^epoch 0 \| loss 0\.\d+ \| HR@10 0\.\d")

    def test_draws_negatives_that_the_user_has_not_seen(self):
        interactions, _ = _data(self.rng)
        pairs = set(zip(interactions["user"], interactions["item"], strict=True))
        (users, items), labels = ncf.sample(interactions, 3, self.rng)
        self.assertEqual([x.shape for x in (users, items, labels)], [(6720, 1)] * 3)
        drawn = list(zip(users[:, 0], items[:, 0], strict=True))
        known = [float(pair in pairs) for pair in drawn]
        self.assertAllEqual(labels[:, 0], known)
        self.assertEqual(sum(known), 1680)
        again, _ = ncf.sample(interactions, 3, np.random.default_rng(5))
        self.assertNotAllEqual(again[1], items)
        with self.assertRaisesRegex(ValueError, "every item: nothing to draw"):
            ncf.sample({"user": [1, 1, 2], "item": [5, 6, 5]}, 1, self.rng)

    @parameterized.parameters(
        ("gmf", "published_gmf8.npz", 0.6368, 0.3691),
        ("mlp", "published_mlp8.npz", 0.6710, 0.3963),
    )
    def test_published_weights_rank_as_published(self, name, file, hit_rate, ndcg):
        folder = pathlib.Path(os.environ.get("MONOLITH_TF_TEST_DATA", "")) / "ncf_ml1m"
        if "MONOLITH_TF_TEST_DATA" not in os.environ or not folder.exists():
            self.skipTest("MONOLITH_TF_TEST_DATA names no folder with ncf_ml1m")
        weights = np.load(folder / file)
        model = ncf.MODELS[name]()
        for layer in model.layers:
            values = [weights[key] for key in weights if key.startswith(layer.name)]
            if layer.name.endswith("_embedding"):
                layer.set_rows(np.arange(len(values[0])), values[0])
            elif values:
                layer.set_weights(values)  # Kernel and bias, in this order.
        test = pq.read_table(folder / "test.parquet").to_pydict()
        found = np.round(ncf.evaluate(model, test), 4)
        self.assertAllEqual(found, np.array([hit_rate, ndcg]))
