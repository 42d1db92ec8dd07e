"""Finds movies for users: two towers, an index of all movies, and their recall.

    python examples/retrieval.py

trains `configs/movielens_two_tower.yaml` on MovieLens-1M, split by time, and again
without the correction for popular movies in its loss. A query is a user just before
giving a movie of the test split 4 stars or more. recall@k is the share of queries whose
movie is among the k best of all movies in the training data, and among the k best of
those that the user had not rated before. The baseline ranks movies for all users by
their number of ratings in the training data.

The corrected model is exported with its index inside: user features in, movies out.
"""

import argparse
import pathlib
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

import monolith_tf as mt
from monolith_tf.export import graph
from monolith_tf.export import metadata

# isort: split
# Uses `tf.keras`, which is Keras 2 because monolith_tf was imported first.
import tensorflow_recommenders as tfrs

ROOT = pathlib.Path(__file__).resolve().parent.parent
CONFIG = ROOT / "configs" / "movielens_two_tower.yaml"
MODELS = {
    "two towers": (),
    "not corrected": ("model.params.item_interval=null",),
}
KS = (10, 100)
BATCH = 1024


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains both models, prints their recall, and exports one with its index."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, default=ROOT / "data/ml1m/by_time")
    parser.add_argument("--folder", type=pathlib.Path, default=ROOT / "runs/retrieval")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--split", choices=("valid", "test"), default="test")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="an override"
    )
    parser.add_argument(
        "--output", type=pathlib.Path, help="also write the table there"
    )
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    queries = Queries(options.data, options.split)
    pq.write_table(queries.catalogue, options.folder / "movies.parquet")
    found: dict[str, list[dict[str, float]]] = {name: [] for name in MODELS}
    for seed in options.seeds:
        for name, overrides in MODELS.items():
            job = mt.Estimator(
                CONFIG,
                f"model_dir={options.folder / name.replace(' ', '_')}_{seed}",
                f"seed={seed}",
                f"data.train={options.data}/train.parquet",
                f"data.eval={options.data}/valid.parquet",
                # Queries, then movies, so that one pass embeds both.
                f"data.test=[{options.data}/{options.split}.parquet, "
                f"{options.folder}/movies.parquet]",
                *overrides,
                *options.set,
            )
            job.train()
            rows = list(job.predict("test"))
            users, movies = (
                np.concatenate([batch[f"{side}_embedding"] for batch in rows])
                for side in ("user", "item")
            )
            users, movies = users[: len(queries.liked)], movies[len(queries.liked) :]
            found[name].append(queries.recalls(users, movies))
            if not overrides and seed == options.seeds[0]:
                model = job.export_saved_model()
                path = options.folder / "index" / model.name
                export(model, movies, queries.ids, path)
                print(f"SavedModel: {path}")
    baseline = queries.recalls(*queries.popularity())
    text = table({"popularity": [baseline], **found}, queries, options)
    print(text)
    if options.output is not None:
        options.output.write_text(text, encoding="utf-8")


class Queries:
    """Users of a split, just before they rate a movie.

    Attributes:
      ids: All movies of the training data, in increasing order.
      catalogue: A row of the training data for each of them.
      liked: Whether each row of the split is a query: its movie has 4 stars or more.
    """

    def __init__(self, source: pathlib.Path, split: str) -> None:
        """Reads the files.

        Args:
          source: The folder `by_time` of `scripts/prepare/movielens_1m.py`.
          split: `valid` or `test`.
        """
        earlier = {"valid": ("train",), "test": ("train", "valid")}[split]
        train = pq.read_table(source / "train.parquet")
        before = pa.concat_tables(
            [pq.read_table(source / f"{name}.parquet") for name in earlier]
        )
        rows = pq.read_table(source / f"{split}.parquet")
        self.ids, first, self._counts = np.unique(
            train["movie"].to_numpy(), return_index=True, return_counts=True
        )
        self.catalogue = train.take(first)
        self.liked = rows["rating"].to_numpy() >= 4
        self._users, self._movies = rows["user"].to_numpy(), rows["movie"].to_numpy()
        self._before = before["user"].to_numpy(), self._places(before["movie"])

    def _places(self, movies: Any) -> np.ndarray:
        """Returns the positions of movies in `ids`; `len(ids)` for unknown ones."""
        places = np.searchsorted(self.ids, movies)
        known = np.append(self.ids, -1)[places] == np.asarray(movies)
        return np.where(known, places, len(self.ids))

    def popularity(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns embeddings whose products are the movies' ratings in training."""
        users = np.ones([len(self.liked), 1], np.float32)
        return users, self._counts[:, np.newaxis].astype(np.float32)

    def recalls(self, users: np.ndarray, movies: np.ndarray) -> dict[str, float]:
        """Returns recall@k by name.

        Args:
          users: Embeddings of the split's rows, `[rows, dim]`.
          movies: Embeddings of `ids`, `[movies, dim]`.
        """
        of_all = tfrs.metrics.FactorizedTopK(index(movies, self.ids, max(KS)), KS)
        queries, chosen = users[self.liked], self._movies[self.liked]
        for start in range(0, len(queries), BATCH):
            piece = slice(start, start + BATCH)
            # With ids it does not need the embeddings of the chosen movies.
            of_all.update_state(queries[piece], queries[piece], chosen[piece])
        ranks = self._ranks_among_new(users, movies)
        return {
            **{
                f"recall@{k}": float(value)
                for k, value in zip(KS, of_all.result(), strict=True)
            },
            **{f"recall@{k}, not yet rated": float(np.mean(ranks < k)) for k in KS},
        }

    def _ranks_among_new(self, users: np.ndarray, movies: np.ndarray) -> np.ndarray:
        """Returns, per liked movie, how many movies not rated before score higher."""
        # One more position, for movies that are not in the training data.
        rated = np.zeros([self._users.max() + 1, len(self.ids) + 1], bool)
        rated[self._before] = True
        ranks = []
        for user, place, liked, embedding in zip(
            self._users, self._places(self._movies), self.liked, users, strict=True
        ):
            if liked:
                scores = np.append(movies @ embedding, -np.inf)
                ranks.append(np.sum(scores[~rated[user]] > scores[place]))
            rated[user, place] = True
        return np.array(ranks)


def index(movies: np.ndarray, ids: np.ndarray, k: int) -> Any:
    """Returns a layer that finds the ids of the `k` best movies for users."""
    found = tfrs.layers.factorized_top_k.BruteForce(k=k)
    return found.index(tf.constant(movies), tf.constant(ids))


def export(
    model: pathlib.Path, movies: np.ndarray, ids: np.ndarray, path: pathlib.Path
) -> None:
    """Writes a SavedModel from user features to the best movies and their scores.

    Args:
      model: An export of the two towers.
      movies: Embeddings, `[movies, dim]`.
      ids: Their ids, `[movies]`.
      path: The folder to write.
    """
    finder = Finder(tf.saved_model.load(model), index(movies, ids, max(KS)))
    columns = metadata.read(model)["user_columns"]
    specs = {
        name: spec
        for name, spec in finder.inputs.items()
        if name.removesuffix("_length") in columns
    }
    function = tf.function(finder.find).get_concrete_function(**specs)
    key = tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
    tf.saved_model.save(finder, path, {key: function})
    graph.finish(path, {key: tf.saved_model.PREDICT_METHOD_NAME})
    graph.check(path)


class Finder(tf.Module):
    """An export of two towers, and an index of the items' embeddings.

    Attributes:
      inputs: The towers' inputs by name.
    """

    def __init__(self, model: Any, index: Any) -> None:
        super().__init__()
        self._model = model
        self._embed = model.signatures["serving_default"]
        self._index = index
        self.inputs = self._embed.structured_input_signature[1]

    def find(self, **user: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns movies and scores, the best one first, `[batch, k]` both."""
        rows = tf.shape(next(iter(user.values())))[:1]
        # The user's embedding does not depend on the inputs of the item's tower.
        item = {
            name: tf.zeros(
                tf.concat([rows, [0] * (spec.shape.rank - 1)], 0), spec.dtype
            )
            for name, spec in self.inputs.items()
            if name not in user
        }
        scores, movies = self._index(self._embed(**user, **item)["user_embedding"])
        return {"movie": movies, "score": scores}


def table(
    found: Mapping[str, Sequence[Mapping[str, float]]],
    queries: Queries,
    options: argparse.Namespace,
) -> str:
    """Returns a page in Markdown, with the mean and deviation over the seeds."""
    names = list(next(iter(found.values()))[0])
    rows = [["", *names], ["---"] * (1 + len(names))]
    for model, results in found.items():
        cells = [model]
        for name in names:
            values = [result[name] for result in results]
            cell = f"{np.mean(values):.4f}"
            if len(values) > 1:
                cell += f" ± {np.std(values, ddof=1):.4f}"
            cells.append(cell)
        rows.append(cells)
    lines = [
        "# Retrieval on MovieLens-1M, split by time",
        "",
        "<!-- Made by `python examples/retrieval.py --output`. -->",
        "",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        f"{queries.liked.sum():,} queries of the {options.split} split, "
        f"{len(queries.ids):,} movies; seeds {', '.join(map(str, options.seeds))}.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
