"""A program that asks a SavedModel, by the session loader that a model server uses.

It knows nothing but the SavedModel and the requests: `monolith_tf` cannot be imported
in it. Its argument is a file of a job, as `clean_process` writes it.
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
