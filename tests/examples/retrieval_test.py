"""Runs `examples/retrieval.py` on made-up ratings."""

import importlib.util
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from monolith_tf.testing import c_session

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_SPEC = importlib.util.spec_from_file_location(
    "retrieval", _ROOT / "examples" / "retrieval.py"
)
retrieval = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(retrieval)

_MOVIES = 110


@pytest.fixture
def data(tmp_path):
    """Three splits of ratings of 12 users; the last movie is only in the test split."""
    rng = np.random.default_rng(0)
    rated = {u: 1 + rng.choice(_MOVIES, 20, replace=False) for u in range(1, 13)}
    pairs = {
        # User 0 has rated each movie.
        "train": [(0, m) for m in range(1, _MOVIES + 1)]
        + [(u, m) for u, movies in rated.items() for m in movies[:14]],
        "valid": [(u, m) for u, movies in rated.items() for m in movies[14:17]],
        "test": [(u, m) for u, movies in rated.items() for m in [*movies[17:], 999]],
    }
    for split, rows in pairs.items():
        users, movies = map(list, zip(*rows, strict=True))
        columns = {
            "user": pa.array(users, pa.int64()),
            "movie": pa.array(movies, pa.int64()),
            "rating": pa.array([3 + m % 3 for m in movies], pa.int64()),
            "gender": ["FM"[u % 2] for u in users],
            "age": pa.array([u % 4 for u in users], pa.int64()),
            "occupation": pa.array([u % 5 for u in users], pa.int64()),
            "genres": [["Drama", "War"][: m % 3] for m in movies],
            "history": pa.array(
                [[m, 7][: m % 3] for m in movies], pa.list_(pa.int64())
            ),
        }
        pq.write_table(pa.table(columns), tmp_path / f"{split}.parquet")
    return tmp_path, pairs


def _recall(scores, data, k, *, new):
    """Counts movie by movie, as in the definition."""
    _, pairs = data
    rated = {(u, m) for split in ("train", "valid") for u, m in pairs[split]}
    hits = []
    for user, movie in pairs["test"]:
        if 3 + movie % 3 >= 4:
            rivals = [
                m for m in range(1, _MOVIES + 1) if not new or (user, m) not in rated
            ]
            best = sorted(rivals, key=lambda m: -scores[user, m])[:k]
            hits.append(movie in best)
        rated.add((user, movie))
    return np.mean(hits)


def test_recall_is_that_of_the_definition(data):
    queries = retrieval.Queries(data[0], "test")
    rng = np.random.default_rng(1)
    of_user, movies = rng.normal(size=(2, 1000, 4)).astype(np.float32)
    users = of_user[[user for user, _ in data[1]["test"]]]
    found = queries.recalls(users, movies[1 : _MOVIES + 1])
    scores = of_user @ movies.T
    assert found == pytest.approx(
        {
            f"recall@{k}{name}": _recall(scores, data, k, new=bool(name))
            for k in (10, 100)
            for name in ("", ", not yet rated")
        }
    )
    assert 0 < found["recall@10"] < found["recall@100"] < 1


def test_popularity_goes_by_the_training_data(data):
    queries = retrieval.Queries(data[0], "test")
    users, movies = queries.popularity()
    counts = [0] * (_MOVIES + 1)
    for _, movie in data[1]["train"]:
        counts[movie] += 1
    assert (users @ movies.T)[0].tolist() == counts[1:]


@pytest.mark.slow
def test_what_is_served_finds_what_the_towers_find(data, tmp_path, capsys):
    output = tmp_path / "table.md"
    options = {"data": data[0], "folder": tmp_path / "runs", "output": output}
    arguments = [f"--{name}={value}" for name, value in options.items()]
    for short in ("max_steps=3", "summaries=false"):
        arguments += ["--set", f"trainer.{short}"]
    retrieval.main([*arguments, "--set", "data.batch_size=64"])
    text = output.read_text()
    assert text in capsys.readouterr().out
    assert [line.split("|")[1].strip() for line in text.splitlines()[4:9]] == [
        "", "---", "popularity", "two towers", "not corrected",
    ]  # fmt: skip
    (path,) = (tmp_path / "runs" / "index").iterdir()
    (model,) = (tmp_path / "runs" / "two_towers_1" / "export").iterdir()
    user = {
        "user": np.array([3, 4]),
        "gender": np.array([b"M", b"F"], object),
        "age": np.array([3, 0]),
        "occupation": np.array([3, 4]),
        "history": np.array([[5, 7], [9, 0]]),
        "history_length": np.array([2, 1]),
    }
    (found,) = c_session.ask(path, [("serving_default", user)])
    ids = np.arange(1, _MOVIES + 1)
    genres = [["Drama", "War"][: m % 3] + [""] * (2 - m % 3) for m in ids.tolist()]
    item = {
        "movie": ids,
        "genres": np.array([[g.encode() for g in row] for row in genres], object),
        "genres_length": ids % 3,
    }
    for row in range(2):
        one = {name: value[row : row + 1] for name, value in user.items()}
        (scores,) = c_session.ask(model, [("candidates", {**one, **item})])
        best = np.argsort(-scores["liked"])[:100]
        np.testing.assert_allclose(
            found["score"][row], scores["liked"][best], rtol=1e-4, atol=1e-6
        )
        np.testing.assert_array_equal(found["movie"][row][:3], ids[best][:3])
