import csv
import dataclasses
import json
import pathlib

import pyarrow as pa
import pytest
from pyarrow import parquet

from monolith_tf import config as config_lib
from monolith_tf.testing import examples

DATA = pathlib.Path(__file__).parent / "testdata"
GOOD = (DATA / "dcn.yaml").read_text()
ASSEMBLED = (DATA / "assembled.yaml").read_text()
SOURCE = "configs/x.yaml"


def errors_of(text, *overrides, data="ignored"):
    with pytest.raises(config_lib.ConfigError) as caught:
        config_lib.parse_config(text, SOURCE, overrides, data=data)
    return str(caught.value).splitlines()


def changed(old, new, text=GOOD):
    assert text.count(old) == 1, old
    return text.replace(old, new)


_ERRORS = {
    "missing_table": (
        "kind: id, table: user}",
        "kind: id, table: usr}",
        "5: `features[0].table`: there is no table `usr`. Did you mean `user`?",
    ),
    "no_table_at_all": (
        ", kind: id, table: user}",
        ", kind: id}",
        "5: `features[0]`: feature `user_id` names no table, and no table has its "
        "name. Set its `table`, or `default_table` for all such features.",
    ),
    "unused_table": (
        "tables:\n",
        "tables:\n  - {name: more, dim: 2}\n",
        "11: `tables[0]`: no feature uses the table `more`. Remove it.",
    ),
    "one_slot_for_two_tables": (
        "admit_after: 2",
        "slot: 3",
        "15: `tables[1].slot`: slot 3 already belongs to `tables[0]`.",
    ),
    "slot_of_the_default_table": (
        "seed: 7",
        "default_table: {dim: 4, slot: 9}",
        "2: `default_table.slot`: a slot belongs to one table. Remove it; each table "
        "gets its own.",
    ),
    "duplicate_feature": (
        "name: item_id",
        "name: user_id",
        "7: `features[2].name`: duplicate name `user_id`, first given as "
        "`features[0]`.",
    ),
    "duplicate_label": (
        "[click]",
        "[click, {name: click, column: b}]",
        "9: `labels[1].name`: duplicate name `click`, first given as `labels[0]`.",
    ),
    "duplicate_table": (
        "name: item, dim: 16, optimizer",
        "name: user, dim: 16, optimizer",
        "15: `tables[1].name`: duplicate name `user`, first given as `tables[0]`.",
    ),
    "duplicate_metric": (
        "[auc, gauc]",
        "[auc, auc]",
        "21: `metrics[1]`: duplicate metric `auc`.",
    ),
    "metric_that_groups": (
        "group_by: user_id\n",
        "",
        "21: `metrics[1]`: `gauc` compares rows of one group. Set `group_by` to the "
        "feature whose ids are the groups, such as the user.",
    ),
    "group_by": (
        "group_by: user_id",
        "group_by: userid",
        "22: `group_by`: there is no feature `userid`. Did you mean `user_id`?",
    ),
    "group_by_a_list": (
        "group_by: user_id",
        "group_by: history",
        "22: `group_by`: must name a feature of kind id. Received: kind id_list.",
    ),
    "evaluation_without_rows": (
        ", eval: eval/*.parquet",
        "",
        "19: `trainer.eval_every_steps`: there are no rows to evaluate on. Set "
        "`data.eval` or `data.validation_fraction`.",
    ),
    "early_stop": (
        "keep_checkpoints: 5",
        "early_stop: {metric: click/acu}",
        "20: `trainer.early_stop.metric`: there is no metric `click/acu` in "
        "evaluations. Did you mean `click/auc`?",
    ),
    "keep_best": (
        "keep_checkpoints: 5",
        "keep_best: buy/auc",
        "20: `trainer.keep_best`: there is no metric `buy/auc` in evaluations. Did you "
        "mean `auc`?",
    ),
    "drop_tables": (
        "keep_checkpoints: 5",
        "drop_tables: [gone, item]",
        "20: `trainer.drop_tables[1]`: a feature uses the table `item`. Remove it "
        "here, or give the feature another table.",
    ),
    "model_name": (
        "{name: dcn,",
        "{name: dnc,",
        "16: `model.name`: there is no model `dnc`. Did you mean `dcn`? Set "
        "`class` for your own model.",
    ),
}


@pytest.mark.parametrize(("old", "new", "message"), _ERRORS.values(), ids=list(_ERRORS))
def test_errors(old, new, message):
    lines = errors_of(changed(old, new))
    assert f"{SOURCE}:{message}" in lines
    if not message.split(" ")[0].startswith("15"):
        assert len(lines) == 1 or "duplicate" in message


def test_unknown_metric():
    (line,) = errors_of(changed("[auc, gauc]", "[aucc, gauc]"))
    assert line.startswith(
        f"{SOURCE}:21: `metrics[0]`: A metric must be one of accuracy, "
    )
    assert line.endswith("Received: name='aucc'. Did you mean `auc`?")


def test_metric_without_a_direction():
    text = changed("keep_checkpoints: 5", "keep_best: calibration")
    (line,) = errors_of(changed("[auc, gauc]", "[auc, calibration]", text))
    assert line.startswith(f"{SOURCE}:20: `trainer.keep_best`: ")
    assert "best at 1" in line
    text = changed(
        "keep_checkpoints: 5", "early_stop: {metric: calibration, mode: min}"
    )
    text = changed("[auc, gauc]", "[auc, calibration]", text)
    config_lib.parse_config(text, data="ignored")


def test_progressive_training_keeps_the_order_in_one_process():
    first, second = errors_of(GOOD, "trainer.mode=progressive")
    assert first.endswith(
        "`data.shuffle_buffer`: progressive training reads the rows in their order. "
        "Set it to 0."
    )
    assert second.endswith(
        "`trainer.mode`: progressive training on files runs in one process. Remove "
        "`cluster`."
    )
    good = ("trainer.mode=progressive", "data.shuffle_buffer=0", "cluster=null")
    # There are no rows of an eval split either.
    config_lib.parse_config(GOOD, "x", [*good, "data.eval=[]"], data="ignored")


@pytest.mark.parametrize("name", ["loss", "auc", "click/auc", "click/gauc"])
def test_names_of_metrics(name):
    config = config_lib.parse_config(
        GOOD, "x", [f"trainer.keep_best={name}"], data="ignored"
    )
    assert config.trainer.keep_best == name


_MODEL_ERRORS = {
    "head_label": (
        "{label: buy,",
        "{label: by,",
        "`model.heads[1].label`: there is no label `by`. Did you mean `buy`?",
    ),
    "head_sample_rate": (
        "{label: buy,",
        "{label: buy, sample_rate: clik,",
        "`model.heads[1].sample_rate`: there is no label `clik`. Did you mean `click`?",
    ),
    "group_member": (
        "ids: [user, item]",
        "ids: [user, itm]",
        "`model.groups.ids[1]`: there is no feature `itm`. Did you mean `item`?",
    ),
    "block_named_as_a_feature": (
        "{name: pair,",
        "{name: price,",
        "`model.blocks[2].name`: the feature `price` already has this name.",
    ),
    "layer": (
        "layer: MMoE",
        "layer: mmoe",
        "`model.blocks[1].layer`: there is no layer `mmoe`. Did you mean `MMoE`?",
    ),
    "input": (
        "inputs: [all]",
        "inputs: [al]",
        "`model.blocks[0].inputs[0]`: there is no feature, group or block `al`. Did "
        "you mean `all`?",
    ),
    "later_block": (
        "inputs: [all]",
        "inputs: [all, pooled]",
        "`model.blocks[0].inputs[1]`: the block `pooled` is defined below. Move it up.",
    ),
    "itself": (
        "inputs: [all]",
        "inputs: x",
        "`model.blocks[0].inputs`: the block `x` is defined below. Move it up.",
    ),
    "head_input": (
        '["moe[1]", pair]',
        '["mo[1]", pair]',
        "`model.heads[1].inputs[0]`: there is no feature, group or block `mo`. Did you "
        "mean `moe`?",
    ),
    "index_of_a_feature": (
        '["moe[1]", pair]',
        '["user[1]", pair]',
        "`model.heads[1].inputs[0]`: `user` is not a block, so it has no tensor 1.",
    ),
    "slice": (
        "item.bias",
        "item.bia",
        "`model.heads[0].inputs[1]`: the table `sliced` has no slice `bia`. Did you "
        "mean `bias`?",
    ),
    "slice_of_a_group": (
        "item.bias",
        "ids.bias",
        "`model.heads[0].inputs[1]`: the table `user` has no slice `bias`. Known: "
        "`vec`.",
    ),
    "mask_of_a_built_in_group": (
        "item.bias",
        "dense.mask",
        "`model.heads[0].inputs[1]`: `price` is not a feature with an embedding, so it "
        "has no parts.",
    ),
    "slice_of_a_dense_feature": (
        "item.bias",
        "price.bias",
        "`model.heads[0].inputs[1]`: `price` is not a feature with an embedding, so it "
        "has no parts.",
    ),
    "mask_of_a_pooled_feature": (
        "history.mask",
        "user.mask",
        "`model.blocks[3].inputs[1]`: `user` has no mask: its combiner is not "
        "`first_n`.",
    ),
}


@pytest.mark.parametrize(
    ("old", "new", "message"), _MODEL_ERRORS.values(), ids=list(_MODEL_ERRORS)
)
def test_model_errors(old, new, message):
    lines = errors_of(changed(old, new, ASSEMBLED))
    assert [line.partition(": ")[2] for line in lines][:1] == [message]


@pytest.mark.parametrize("entry", ["embeddings.vec", "ids.vec", "history.vec"])
def test_slices_of_groups(entry):
    text = changed("item.bias", entry, ASSEMBLED)
    model = config_lib.parse_config(text, data="ignored").model
    assert any(entry in part.inputs for part in (*model.blocks, *model.heads))


def test_a_config_made_in_python_is_checked_too():
    good = config_lib.parse_config(GOOD, data="ignored")
    config_lib.check_config(good)
    wrong = dataclasses.replace(good, group_by="userid")
    with pytest.raises(config_lib.ConfigError) as caught:
        config_lib.check_config(wrong)
    assert str(caught.value) == (
        "config: `group_by`: there is no feature `userid`. Did you mean `user_id`?"
    )
    wrong = dataclasses.replace(good, tables=good.tables[:1])
    with pytest.raises(config_lib.ConfigError) as caught:
        config_lib.check_config(wrong)
    assert [str(problem) for problem in caught.value.problems] == [
        f"config: `features[{index}].table`: there is no table `item`. Known: `user`."
        for index in (1, 2)
    ]


def _write(path, rows):
    """Writes rows, dicts of scalars, in the format of the path's extension."""
    if path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    else:
        examples.write(path, rows)


class TestData:
    @pytest.fixture
    def text(self, tmp_path):
        for split in ("train", "eval"):
            (tmp_path / split).mkdir()
            table = pa.table(
                {
                    "user_id": [1, 2],
                    "history": [[1], [2, 3]],
                    "item_id": [2, 3],
                    "price": [0.5, 1.5],
                    "click": [0, 1],
                }
            )
            parquet.write_table(table, tmp_path / split / "0.parquet")
        text = changed("train: train/", f"train: {tmp_path}/train/")
        return changed("eval: eval/", f"eval: {tmp_path}/eval/", text)

    def test_fitting(self, text):
        config = config_lib.parse_config(text, data="required")
        assert [label.name for label in config.labels] == ["click"]

    def test_label_missing_from_the_data(self, text):
        text = changed("label: click", "label: clik", text)
        lines = errors_of(changed("[click]", "[clik]", text), data="present")
        assert lines == [
            f"{SOURCE}:9: `labels[0].name`: The data has no column `clik` for label "
            "`clik`. Did you mean `click`?"
        ]

    def test_feature_missing_from_the_data(self, text):
        text = changed("name: price,", "name: price, column: prize,", text)
        text = changed("[click]", "[{name: click, column: clik}]", text)
        assert errors_of(text, data="required") == [
            f"{SOURCE}:8: `features[3].column`: The data has no column `prize` for "
            "feature `price`. Did you mean `price`?",
            f"{SOURCE}:9: `labels[0].column`: The data has no column `clik` for label "
            "`click`. Did you mean `click`?",
        ]

    def test_weight_missing_from_the_data(self, text):
        (line,) = errors_of(text, "data.weight=prize", data="present")
        assert line == (
            "command line: `data.weight`: The data has no column `prize` for the "
            "weights. Did you mean `price`?"
        )

    def test_uses_that_disagree(self, text):
        text = changed(
            "{name: price,",
            "{name: rate, column: history, kind: dense}\n  - {name: price,",
            text,
        )
        (line,) = errors_of(text, data="present")
        assert line.startswith(f"{SOURCE}:4: `features`: Column `history` is used by ")

    def test_column_missing_from_one_split(self, text, tmp_path):
        path = tmp_path / "eval" / "0.parquet"
        parquet.write_table(parquet.read_table(path).drop(["price"]), path)
        (line,) = errors_of(text, data="present")
        assert line.startswith(
            f"{SOURCE}:8: `features[3].name`: The data has no column `price` for "
        )

    def test_files_that_are_not_there(self, text, tmp_path):
        (tmp_path / "eval" / "0.parquet").unlink()
        config_lib.parse_config(text, data="present")
        (line,) = errors_of(text, data="required")
        assert line.startswith(
            f"{SOURCE}:3: `data.eval`: no file matches '{tmp_path}/eval/*.parquet'. "
        )

    def test_a_file_of_another_format(self, text, tmp_path):
        (tmp_path / "train" / "0.parquet").write_text("no parquet")
        (line,) = errors_of(text, data="present")
        assert line.startswith(f"{SOURCE}:3: `data.train`: ")

    def test_ids_that_mean_something_else_in_another_split(self, text, tmp_path):
        for split, items in (("train", [2, 3]), ("eval", [True, False])):
            rows = {"user_id": [1, 2], "item_id": items, "click": [0, 1]}
            parquet.write_table(pa.table(rows), tmp_path / split / "0.parquet")
        features = (
            "features=[{name: user_id, kind: id, table: user}, "
            "{name: item_id, kind: id, table: item}]"
        )
        assert errors_of(text, features, data="required") == [
            f"{SOURCE}:3: `data.eval`: column `item_id` has type bool in "
            f"{tmp_path}/eval/0.parquet, but type int64 in "
            f"{tmp_path}/train/0.parquet. Give it one type in all files."
        ]

    @pytest.mark.parametrize("ending", ["parquet", "csv", "tfrecord"])
    def test_ids_that_look_otherwise_in_another_split(self, text, tmp_path, ending):
        for split, items in (("train", [2, 3]), ("eval", ["a", "b"])):
            path = tmp_path / split / f"0.{ending}"
            names = ("user_id", "item_id", "click")
            rows = [
                dict(zip(names, row, strict=True))
                for row in zip([1, 2], items, [0, 1], strict=True)
            ]
            _write(path, rows)
        text = changed("format: parquet,", "", text).replace("*.parquet", f"*.{ending}")
        features = (
            "features=[{name: user_id, kind: id, table: user}, "
            "{name: item_id, kind: id, table: item}]"
        )
        lines = errors_of(text, features, data="required")
        assert lines == [
            f"{SOURCE}:3: `data.eval`: column `item_id` looks like string here and "
            "like int64 in `data.train`. Set `dtype` where it is read, or fix the "
            "file."
        ]


def test_windows_of_event_time_need_a_topic():
    common = ("data.shuffle_buffer=0", "cluster=null", "trainer.mode=progressive")
    common += ("trainer.eval_every_steps=null", "trainer.eval_every_epochs=null")
    (error,) = errors_of(GOOD, *common)
    assert "`trainer.eval_every_steps`: must be set if" in error
    (error,) = errors_of(GOOD, *common, "trainer.eval_window_secs=60")
    assert "`trainer.eval_window_secs`: only the messages of a topic" in error
    topic = "data.train=kafka://localhost:9092/clicks"
    config_lib.parse_config(GOOD, "x", [*common, topic], data="ignored")


def test_a_topic_is_read_in_a_cluster_too():
    topic = ("data.train=kafka://localhost:9092/clicks", "cluster.workers=2")
    topic += ("trainer.eval_every_epochs=null", "trainer.eval_every_steps=null")
    config_lib.parse_config(GOOD, "x", [*topic, "data.eval=[]"], data="ignored")
    topic += ("trainer.mode=progressive",)
    config_lib.parse_config(GOOD, "x", topic, data="ignored")
    (error,) = errors_of(GOOD, *topic, "cluster.pipeline.prefetch=1")
    assert "`cluster.pipeline`: in progressive training a step must see all" in error


_STREAMED = """\
model_dir: x
data:
  stream: {{brokers: "h:1", topic: t, payload: avro, schema: {schema}}}
default_table: {{dim: 4}}
features: [{{name: item, kind: id, column: item.id}}, {{name: user, kind: id}}]
labels: [click]
model: {{name: dcn, params: {{label: click}}}}
"""


def test_columns_of_a_topic_are_checked_against_its_schema(tmp_path):
    path = tmp_path / "click.avsc"
    text = _STREAMED.format(schema=path)
    (error,) = errors_of(text, data="required")
    assert "`data.stream.schema`" in error
    assert "No such file" in error
    fields = [{"name": "user", "type": "long"}, {"name": "click", "type": "int"}]
    path.write_text(json.dumps({"type": "record", "name": "R", "fields": fields}))
    (error,) = errors_of(text, data="required")
    assert "no column `item.id`" in error
    item = {"type": "record", "name": "I", "fields": [{"name": "id", "type": "int"}]}
    fields.append({"name": "item", "type": item})
    path.write_text(json.dumps({"type": "record", "name": "R", "fields": fields}))
    config_lib.parse_config(text, SOURCE, data="required")
