"""Predictions while dense weights change: each is of the old or the new model."""

import json
import subprocess
import sys

import numpy as np

from monolith_tf.export import clean_process
from tests.export import dense_updates_test as case

_PROGRAM = """
import json, pathlib, pickle, sys, threading
sys.modules["monolith_tf"] = None
import tensorflow.compat.v1 as tf

job = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())
(asked, fetches), *updates = job["requests"]
with tf.Session(graph=tf.Graph()) as session:
    tf.saved_model.load(session, ["serve"], job["model"])
    answer = session.make_callable(list(fetches.values()), list(asked))

    def ask():
        return tuple(value.tobytes() for value in answer(*asked.values()))

    known = []
    for feeds, outputs in updates:
        session.run(outputs, feeds)
        known.append(ask())
    counts, over, lock = [0, 0, 0], threading.Event(), threading.Lock()

    def count():
        mine = [0, 0, 0]
        while not over.is_set():
            found = ask()
            mine[known.index(found) if found in known else 2] += 1
        with lock:
            for place, number in enumerate(mine):
                counts[place] += number

    threads = [threading.Thread(target=count) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(2000):
        feeds, outputs = updates[number % 2]
        session.run(outputs["dense_step"], feeds)
    over.set()
    for thread in threads:
        thread.join()
print(json.dumps({"counts": counts, "differ": known[0] != known[1]}))
"""


def test_no_answer_mixes_two_versions(tmp_path):
    model = case.Dense()
    path = case.export(model, tmp_path)
    vectors = []
    for seed in (1, 2):
        case.changed(model, seed)
        vectors.append(case.vector(model, path))
    columns = {
        "user": np.array([7, 9, 8], np.int64),
        "history": np.array([[1, 0], [0, 0], [5, 1]], np.int64),
        "history_length": np.array([1, 0, 2], np.int64),
        "item": np.array([1, 2, 1], np.int64),
        "price": np.array([1, 2, 3], np.float32),
    }
    requests = [("serving_default", columns)]
    for values in vectors:
        inputs = case.piece(values, is_last=True)
        requests.append(("update_dense", {k: np.array(v) for k, v in inputs.items()}))
    job = tmp_path / "job"
    job.write_bytes(clean_process.make_job(path, requests))
    program = tmp_path / "program.py"
    program.write_text(_PROGRAM)
    done = subprocess.run(
        [sys.executable, "-P", str(program), str(job)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    old, new, mixed = found["counts"]
    assert found["differ"]
    assert mixed == 0
    assert min(old, new) > 10, (old, new)
