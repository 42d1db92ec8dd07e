"""A program that queries a SavedModel through the session loader of model servers.

It has only the SavedModel and the requests: it cannot import `monolith_tf`. Its
argument is a job's file, as `clean_process.make_job` returns it.
"""

import pathlib
import pickle
import sys

sys.modules["monolith_tf"] = None  # type: ignore[assignment]


def main(path: pathlib.Path) -> None:
    """Answers all requests of a job, in order."""
    import tensorflow.compat.v1 as tf

    job = pickle.loads(path.read_bytes())
    tf.disable_eager_execution()
    with tf.Session(graph=tf.Graph()) as session:
        tf.saved_model.load(session, ["serve"], job["model"])
        answers = [session.run(fetches, feeds) for feeds, fetches in job["requests"]]
    path.with_suffix(".answers").write_bytes(pickle.dumps(answers))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
