"""Every config: exports answer as the trainer does, through TensorFlow's C API."""

import pathlib

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from pyarrow import parquet

from monolith_tf import config as config_lib
from monolith_tf.experiment import build
from monolith_tf.experiment import estimator
from monolith_tf.export import metadata
from monolith_tf.testing import batching
from monolith_tf.testing import c_session

_CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "configs"
_ROWS = 64
_WARMUP_ROWS = 16


def _parameters():
    # One config per commit, all of them with `scripts/test --all`. Every second one
    # takes updates, which gives its tables other indices.
    for number, path in enumerate(sorted(_CONFIGS.glob("*.yaml"))):
        marks = () if path.stem == "frappe_lr" else (pytest.mark.slow,)
        yield pytest.param(path, 8 * (number % 2), id=path.stem, marks=marks)


def _write_data(path, config, folder):
    """Writes rows, then the same rows with the first one's user, and returns the user.

    Half of the columns are taken for the user's.
    """
    data = [f"model_dir={folder}", "cluster=null", f"data.batch_size={_ROWS}"]
    files = [pathlib.Path(name) for name in config.data.test or config.data.train]
    if not all(file.exists() for file in files):
        data += ["data.format=synthetic", f"data.num_rows={_ROWS}"]
    job = build.Job(config_lib.load_config(path, data))
    split = "test" if config.data.test else "train"
    columns = next(iter(job.source(split).dataset(shuffle=False)))
    features = config.features
    read = list(dict.fromkeys(feature.source_column for feature in features))
    half = set(read[: len(read) // 2])
    user = [feature.name for feature in features if feature.source_column in half]
    table = {}
    for name, value in columns.items():
        is_list = isinstance(value, tf.RaggedTensor)
        values = value.to_list() if is_list else value.numpy().tolist()
        values += [values[0]] * _ROWS if name in half else values
        if job.columns[name].dtype == "string":
            values = [
                [v.decode() for v in entry] if is_list else entry.decode()
                for entry in values
            ]
        table[name] = values
    types = {"int64": pa.int64(), "float32": pa.float32(), "string": pa.string()}
    arrays = []
    for name, kind in job.columns.items():
        type_ = types[kind.dtype]
        arrays.append(pa.array(table[name], pa.list_(type_) if kind.is_list else type_))
    parquet.write_table(
        pa.table(arrays, names=list(job.columns)), folder / "rows.parquet"
    )
    return job.feature_columns, table, user


def _arrays(columns, table, rows):
    """Returns named inputs and examples of some rows."""
    named, examples = {}, [tf.train.Example() for _ in range(_ROWS)]
    for name, kind in columns.items():
        values = table[name][rows]
        lists = values if kind.is_list else [[value] for value in values]
        if kind.dtype == "string":
            lists = [[entry.encode() for entry in entries] for entries in lists]
        field = {"int64": "int64_list", "float32": "float_list"}.get(
            kind.dtype, "bytes_list"
        )
        for example, entries in zip(examples, lists, strict=True):
            getattr(example.features.feature[name], field).value.extend(entries)
        dtype = object if kind.dtype == "string" else kind.dtype
        if kind.is_list:
            width = max(map(len, lists))
            empty = b"" if dtype is object else 0
            padded = [entries + [empty] * (width - len(entries)) for entries in lists]
            named[name] = np.array(padded, dtype).reshape(len(lists), width)
            named[name + "_length"] = np.array([len(x) for x in lists], np.int64)
        else:
            named[name] = np.array([entries[0] for entries in lists], dtype)
    return named, np.array([e.SerializeToString() for e in examples], object)


def _warmup_requests(version, requests):
    """Returns the warm-up file's requests; checks that a batcher accepts each."""
    found = []
    for key, _, inputs in batching.warmup_records(version):
        assert batching.refusal(inputs, _WARMUP_ROWS) is None, key
        assert {len(value) for value in inputs.values()} == {_WARMUP_ROWS}, key
        found.append((key, inputs))
    # All signatures except `update_embeddings` and this one, which have no requests.
    assert {key for key, _ in found} == {key for key, _ in requests} - {"candidates"}
    return found


@pytest.mark.parametrize(("path", "spare_rows"), list(_parameters()))
def test_an_export_answers_as_the_trainer_does(path, spare_rows, tmp_path):
    config = config_lib.load_config(path)
    columns, table, user = _write_data(path, config, tmp_path)
    heads = [head.name or head.label for head in config.model.heads]
    heads = heads or [label.name for label in config.labels]
    file = tmp_path / "rows.parquet"
    job = estimator.Estimator(
        path,
        f"model_dir={tmp_path}/model",
        "cluster=null",
        "data.format=parquet",
        *(f"data.{split}={file}" for split in ("train", "eval", "test")),
        "data.validation_fraction=0",
        "data.negatives=null",
        "trainer.warm_start=[]",
        f"data.batch_size={_ROWS}",
        "trainer.epochs=null",
        "trainer.max_steps=2",
        f"export.verify_rows={_ROWS}",
        f"export.output_signatures=[{','.join(heads)}]",
        f"export.classify=[{','.join(heads)}]",
        f"export.regress=[{','.join(heads)}]",
        f"export.user_features=[{','.join(user)}]",
        f"export.spare_rows={spare_rows}",
    )
    job.train()
    version = job.export_saved_model()
    trained, with_one_user = list(job.predict("test"))
    named, examples = _arrays(columns, table, slice(0, _ROWS))
    user_columns = metadata.read(version)["user_columns"]
    one = {
        name: value[:1] if name.removesuffix("_length") in user_columns else value
        for name, value in named.items()
    }
    requests = [
        ("serving_default", named),
        ("serialized_example", {"examples": examples}),
        ("candidates", one),
        *((head, named) for head in heads),
        *((f"regress_{head}", {"inputs": examples}) for head in heads),
        *((f"classify_{head}", {"inputs": examples}) for head in heads),
    ]
    expected = [
        trained,
        trained,
        with_one_user,
        *({head: trained[head]} for head in heads),
        *({"outputs": trained[head]} for head in heads),
        *(
            {"scores": np.stack([1 - trained[head], trained[head]], axis=1)}
            for head in heads
        ),
    ]
    warmup = _warmup_requests(version, requests)
    answers = c_session.ask(version, [*requests, *warmup])
    for (key, _), answer in zip(warmup, answers[len(requests) :], strict=True):
        assert {len(value) for value in answer.values()} == {_WARMUP_ROWS}, key
    for (key, _), answer, outputs in zip(
        requests, answers[: len(requests)], expected, strict=True
    ):
        for name, value in outputs.items():
            np.testing.assert_allclose(
                answer[name], value, rtol=1e-5, atol=1e-6, err_msg=f"{key} {name}"
            )
