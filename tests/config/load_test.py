import pathlib
import subprocess
import sys

import pytest

from monolith_tf import config as config_lib

DATA = pathlib.Path(__file__).parent / "testdata"
GOOD = (DATA / "dcn.yaml").read_text()
ASSEMBLED = (DATA / "assembled.yaml").read_text()
SOURCE = "configs/x.yaml"


def load(text, *overrides, data="ignored", **kwargs):
    return config_lib.parse_config(text, SOURCE, overrides, data=data, **kwargs)


def errors_of(text, *overrides, **kwargs):
    with pytest.raises(config_lib.ConfigError) as caught:
        load(text, *overrides, **kwargs)
    return str(caught.value).splitlines()


def changed(old, new, text=GOOD):
    assert text.count(old) == 1, old
    return text.replace(old, new)


def test_values_arrive_in_the_specs():
    config = load(GOOD)
    assert config.model_dir == "runs/dcn_click"
    assert config.seed == 7
    assert config.data.train == ("train/*.parquet",)
    assert [feature.name for feature in config.features] == [
        "user_id",
        "history",
        "item_id",
        "price",
    ]
    assert config.features[3].transform[0].name == "log1p"
    assert config.labels[0].name == "click"
    assert config.tables[0].optimizer.learning_rate == 0.05
    assert config.tables[1].optimizer.name == "ftrl"
    assert config.model.params == {"label": "click", "hidden_units": [256, 128]}
    assert config.trainer.max_steps == 20_000
    assert config.trainer.epochs is None
    assert config.cluster.workers == 4


def test_an_assembled_model_arrives_in_the_specs():
    model = load(ASSEMBLED).model
    assert model.blocks[1].inputs == ("x",)
    assert model.blocks[2].join == "none"
    assert model.heads[1].weight == 0.5
    assert model.groups == {"ids": ("user", "item")}


def test_scalars_are_what_they_look_like():
    text = """\
model_dir: no
data: {format: synthetic, weight: on, delimiter: ';', list_delimiter: "|"}
features:
  - {name: 2024-01-01, kind: id, default: 0123}
  - {name: x, kind: dense, default: 1e-3}
default_table: {dim: 8, optimizer: {name: adagrad, learning_rate: .5}}
model: {class: "m:M", params: {a: 1e-3, b: 1_000, c: yes, d: true, e: ~, f: 12:30,
                               g: 0x10, h: "1e-3", i: 1., j: '', k: 0o17}}
trainer: {max_steps: 1e6, clip_norm: 10}
"""
    config = load(text)
    assert config.model_dir == "no"
    assert config.data.weight == "on"
    assert config.features[0].name == "2024-01-01"
    assert config.features[0].default == "0123"
    assert config.features[1].default == 0.001
    assert config.default_table.optimizer.learning_rate == 0.5
    assert config.model.params == {
        "a": 0.001,
        "b": 1000,
        "c": "yes",
        "d": True,
        "e": None,
        "f": "12:30",
        "g": 16,
        "h": "1e-3",
        "i": 1.0,
        "j": "",
        "k": 15,
    }
    assert config.trainer.max_steps == 1_000_000
    assert isinstance(config.trainer.max_steps, int)
    assert config.trainer.clip_norm == 10.0


def test_short_forms():
    config = load(
        GOOD,
        "trainer.optimizer=lion",
        "tables[0].optimizer=sgd",
        "tables[0].initializer=zeros",
        "trainer.actions=my_module:Action",
    )
    assert config.trainer.optimizer.name == "lion"
    assert config.tables[0].optimizer.name == "sgd"
    assert config.tables[0].initializer.name == "zeros"
    assert config.trainer.actions == ("my_module:Action",)


def test_anchors_and_merge_keys():
    text = """\
model_dir: m
data: {format: synthetic}
features: [{name: a, kind: id}, {name: b, kind: id}, {name: c, kind: id}]
tables:
  - &base {name: a, dim: 4, optimizer: {name: adagrad, learning_rate: 0.5}}
  - {<<: *base, name: b}
  - {name: c, dim: 2, <<: [*base]}
model: {class: "m:M"}
"""
    a, b, c = load(text).tables
    assert (a.dim, b.dim, c.dim) == (4, 4, 2)
    assert a.optimizer == b.optimizer == c.optimizer
    wrong = changed("learning_rate: 0.5", "learning_rat: 0.5", text)
    expected = [
        f"{SOURCE}:5: `tables[{index}].optimizer.learning_rat`: unknown key. "
        "Did you mean `learning_rate`?"
        for index in range(3)
    ]
    assert errors_of(wrong) == expected


def test_config_dir(tmp_path):
    path = tmp_path / "configs" / "x.yaml"
    path.parent.mkdir()
    path.write_text(changed("runs/dcn_click", "${config_dir}/../runs"))
    config = config_lib.load_config(
        path, ["data.eval=${config_dir}/e.parquet"], data="ignored"
    )
    assert config.model_dir == f"{tmp_path}/configs/../runs"
    assert config.data.eval == (f"{tmp_path}/configs/e.parquet",)


def test_config_dir_of_a_file_in_the_current_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("x.yaml").write_text(changed("runs/dcn_click", "${config_dir}/runs"))
    config = config_lib.load_config("x.yaml", data="ignored")
    assert config.model_dir == "./runs"


def test_overrides_in_order():
    config = load(
        GOOD,
        "trainer.max_steps=10",
        "trainer.max_steps=20",
        "tables[1].dim=8",
        "data.train=[a.parquet, b.parquet]",
        "export.keep_versions=2",
        "trainer.optimizer.learning_rate={name: cosine, decay_steps: 100}",
        "cluster=",
        "seed = 1",
    )
    assert config.trainer.max_steps == 20
    assert config.tables[1].dim == 8
    assert config.data.train == ("a.parquet", "b.parquet")
    assert config.export.keep_versions == 2
    assert config.trainer.optimizer.learning_rate.decay_steps == 100
    assert config.cluster is None
    assert config.seed == 1


def test_an_override_below_a_short_form():
    text = changed("{name: adagrad, learning_rate: 5e-2}", "adagrad")
    config = load(text, "tables[0].optimizer.learning_rate=0.5")
    assert config.tables[0].optimizer.name == "adagrad"
    assert config.tables[0].optimizer.learning_rate == 0.5


# A change to the good config, and the lines of its error.
_OPTIMIZER = "{name: adagrad, learning_rate: 5e-2}"
_RATE = "learning_rate: 5e-2"
_ERRORS = {
    "unknown_key": (
        _RATE,
        "learning_rat: 1",
        "13: `tables[0].optimizer.learning_rat`: unknown key. "
        "Did you mean `learning_rate`?",
    ),
    "unknown_key_of_other_case": (
        "max_steps",
        "maxSteps",
        "18: `trainer.maxSteps`: unknown key. Did you mean `max_steps`?",
    ),
    "unknown_key_like_none": (
        "ps: 2, workers",
        "qqq: 2, workers",
        "23: `cluster.qqq`: unknown key. Known: `ps`, `workers`, `evaluator`, "
        "`mode`, `pipeline`, `min_part_bytes`, `join_timeout`, `idle_timeout`, "
        "`hang_timeout`.",
    ),
    "unknown_key_at_the_top": (
        "metrics:",
        "metric:",
        "21: `metric`: unknown key. Did you mean `metrics`?",
    ),
    "the_python_name_of_class": (
        "model: {name: dcn, params:",
        "model: {class_: a:B, params:",
        "16: `model.class_`: unknown key. Did you mean `class`?",
    ),
    "duplicate_key": (
        "seed: 7",
        "seed: 7\nseed: 8",
        "3: `seed`: duplicate key, first given on line 2.",
    ),
    "duplicate_key_inside": (
        "admit_after: 2",
        "dim: 2",
        "14: `tables[0].dim`: duplicate key, first given on line 12.",
    ),
    "missing_key": (
        "name: user_id, ",
        "",
        "5: `features[0]`: the key `name` is missing.",
    ),
    "missing_key_at_the_top": (
        "model_dir: runs/dcn_click\n",
        "",
        "1: the key `model_dir` is missing.",
    ),
    "text_for_a_number": (
        "seed: 7",
        "seed: seven",
        "2: `seed`: must be a whole number. Received: 'seven'.",
    ),
    "fraction_for_a_whole_number": (
        "seed: 7",
        "seed: 7.5",
        "2: `seed`: must be a whole number. Received: 7.5.",
    ),
    "boolean_for_a_whole_number": (
        "seed: 7",
        "seed: true",
        "2: `seed`: must be a whole number. Received: true.",
    ),
    "boolean_for_a_number": (
        _RATE,
        "learning_rate: true",
        "13: `tables[0].optimizer.learning_rate`: must be a number. Received: true.",
    ),
    "null_for_a_number": (
        "seed: 7",
        "seed:",
        "2: `seed`: must be a whole number. Received: null.",
    ),
    "number_for_text": (
        "runs/dcn_click",
        "2024",
        '1: `model_dir`: must be text. Received: 2024. Write "2024" in quotes.',
    ),
    "boolean_for_text": (
        "runs/dcn_click",
        "true",
        '1: `model_dir`: must be text. Received: true. Write "true" in quotes.',
    ),
    "text_for_a_boolean": (
        "keep_checkpoints: 5",
        "deterministic: perhaps",
        "20: `trainer.deterministic`: must be `true` or `false`. Received: 'perhaps'.",
    ),
    "text_for_a_list": (
        "[click]",
        "click",
        "9: `labels`: must be a list. Received: 'click'. Put it in brackets, `[...]`.",
    ),
    "mapping_for_a_list": (
        "[click]",
        "{click}",
        "9: `labels`: must be a list. Received: a mapping.",
    ),
    "number_for_a_mapping": (
        "{ps: 2, workers: 4}",
        "3",
        "23: `cluster`: must be a mapping. Received: 3.",
    ),
    "list_for_a_mapping": (
        "{ps: 2, workers: 4}",
        "[3]",
        "23: `cluster`: must be a mapping. Received: a list.",
    ),
    "entry_of_a_wrong_type": (
        "[click]",
        "[3]",
        "9: `labels[0]`: must be a mapping. Received: 3.",
    ),
    "entry_of_a_short_form": (
        "train/*.parquet",
        "3",
        '3: `data.train`: must be text. Received: 3. Write "3" in quotes.',
    ),
    "choice": (
        "kind: dense",
        "kind: dens",
        "8: `features[3].kind`: must be one of `id`, `id_list`, `dense`. "
        "Received: 'dens'. Did you mean `dense`?",
    ),
    "choice_like_none": (
        "kind: dense",
        "kind: 3",
        "8: `features[3].kind`: must be one of `id`, `id_list`, `dense`. Received: 3.",
    ),
    "union_member_missing": (
        _OPTIMIZER,
        "{learning_rate: 5e-2}",
        "13: `tables[0].optimizer`: the key `name` is missing.",
    ),
    "union_of_a_wrong_type": (
        _OPTIMIZER,
        "3",
        "13: `tables[0].optimizer`: must be a mapping. Received: 3.",
    ),
    "number_or_schedule_text": (
        _RATE,
        "learning_rate: fast",
        "13: `tables[0].optimizer.learning_rate`: must be a number. Received: 'fast'.",
    ),
    "number_or_schedule_list": (
        _RATE,
        "learning_rate: [1]",
        "13: `tables[0].optimizer.learning_rate`: must be a number or a mapping. "
        "Received: a list.",
    ),
    "number_or_schedule_inside": (
        _RATE,
        "learning_rate: {name: cosine, decay: 3}",
        "13: `tables[0].optimizer.learning_rate.decay`: unknown key. "
        "Did you mean `decay_rate`?",
    ),
    "number_or_schedule_choice": (
        _RATE,
        "learning_rate: {name: cosin}",
        "13: `tables[0].optimizer.learning_rate.name`: must be one of `constant`, "
        "`polynomial`, `exponential`, `cosine`, `piecewise`. Received: 'cosin'. "
        "Did you mean `cosine`?",
    ),
    "refused_by_a_spec": (
        "workers: 4",
        "workers: 0",
        "23: `cluster.workers`: `workers` must be at least 1. Received: workers=0. "
        "Leave `cluster` out to run in one process.",
    ),
    "refused_by_a_spec_at_the_top": (
        "seed: 7",
        "seed: -1",
        "2: `seed`: `seed` must be in [0, 2^63). Received: seed=-1.",
    ),
    "not_finite": (
        "keep_checkpoints: 5",
        "clip_norm: .inf",
        "20: `trainer.clip_norm`: must be finite. Received: inf.",
    ),
    "beyond_64_bits": (
        "keep_checkpoints: 5",
        f"keep_checkpoints: {2**63}",
        "20: `trainer.keep_checkpoints`: must fit in 64 bits.",
    ),
    "unknown_variable": (
        "runs/dcn_click",
        "${confg_dir}/x",
        "1: `model_dir`: unknown variable `${confg_dir}`. "
        "Did you mean `${config_dir}`?",
    ),
    "tag": (
        "seed: 7",
        "seed: !!python/object:os.system 7",
        "2: `seed`: the tag `tag:yaml.org,2002:python/object:os.system` is not known. "
        "Remove it.",
    ),
    "key_that_is_no_word": (
        "seed: 7",
        "{a: b}: 7",
        "2: a key must be a plain word.",
    ),
    "tab": (
        "seed: 7",
        "seed:\n\t7",
        "3: The config is not YAML: a tab is used as indentation; indent with spaces.",
    ),
    "brackets_in_brackets": (
        "train: train/*.parquet",
        "train: [a[0], b]",
        "3: The config is not YAML: put names with brackets, such as `tower[0]`, in "
        "quotes.",
    ),
    "unclosed_bracket": (
        "labels: [click]",
        "labels: [click",
        "10: The config is not YAML: expected ',' or ']', but got ':' while parsing a "
        "flow sequence.",
    ),
    "two_documents": (
        "seed: 7",
        "seed: 7\n---\nx: 1",
        "3: The config is not YAML: a config is one YAML document; remove the `---` "
        "between documents.",
    ),
}


@pytest.mark.parametrize(("old", "new", "message"), _ERRORS.values(), ids=list(_ERRORS))
def test_errors(old, new, message):
    assert errors_of(changed(old, new)) == [f"{SOURCE}:{message}"]


def test_wrong_name_in_a_union_lists_all():
    (line,) = errors_of(changed("name: adagrad", "name: adagrat"))
    assert line.startswith(
        f"{SOURCE}:13: `tables[0].optimizer.name`: must be one of `sgd`, `adagrad`, "
    )
    assert line.endswith(" Received: 'adagrat'. Did you mean `adagrad`?")
    (line,) = errors_of(changed(_OPTIMIZER, "adagrat"))
    assert line.startswith(f"{SOURCE}:13: `tables[0].optimizer`: must be one of `sgd`,")
    assert line.endswith(" Received: 'adagrat'. Did you mean `adagrad`?")


def test_all_problems_are_reported_in_the_order_of_the_file():
    text = changed("seed: 7", "sed: 7").replace("workers: 4", "workers: many")
    lines = errors_of(text, "trainer.max_step=3")
    assert lines == [
        f"{SOURCE}:2: `sed`: unknown key. Did you mean `seed`?",
        f"{SOURCE}:23: `cluster.workers`: must be a whole number. Received: 'many'.",
        "command line: `trainer.max_step`: unknown key. Did you mean `max_steps`?",
    ]


_OVERRIDE_ERRORS = {
    "unknown_key": (
        "trainer.max_step=3",
        "`trainer.max_step`: unknown key. Did you mean `max_steps`?",
    ),
    "unknown_branch": (
        "trainr.max_steps=3",
        "`trainr`: unknown key. Did you mean `trainer`?",
    ),
    "wrong_type": (
        "seed=x",
        "`seed`: must be a whole number. Received: 'x'.",
    ),
    "refused": (
        "trainer.optimizer.l1=3",
        "`trainer.optimizer.l1`: `l1` is not an argument of the optimizer adam. "
        "Received: l1=3.0. It takes `learning_rate`, `beta_1`, `beta_2`, `epsilon`.",
    ),
    "index_too_great": (
        "tables[7].dim=3",
        "`tables[7]`: there is no such entry: `tables` has 2 entries, from 0.",
    ),
    "index_into_a_mapping": (
        "trainer[0].dim=3",
        "`trainer[0]`: `trainer` is not a list in the config.",
    ),
    "key_of_a_list": (
        "tables.dim=3",
        "`tables`: the config has a list here, which has no keys to override.",
    ),
    "key_of_a_number": (
        "seed.x=3",
        "`seed`: the config has `7` here, which has no keys to override.",
    ),
    "value_is_not_yaml": (
        "seed=[1",
        "`seed`: the value is not YAML: expected ',' or ']', but got '<stream end>' "
        "while parsing a flow sequence. Received: `[1`.",
    ),
    "value_with_a_duplicate_key": (
        "cluster={ps: 1, ps: 2}",
        "`cluster`: duplicate key, first given on line 1. Received: `{ps: 1, ps: 2}`.",
    ),
    "inside_a_value": (
        "cluster={ps: 1, worker: 2}",
        "`cluster.worker`: unknown key. Did you mean `workers`?",
    ),
    "no_equals": (
        "seed",
        "`seed` must have the form `key.path=value`, such as `trainer.max_steps=200` "
        "or `tables[0].dim=8`.",
    ),
    "bad_path": (
        "a..b=3",
        "`a..b=3` must have the form `key.path=value`, such as "
        "`trainer.max_steps=200` or `tables[0].dim=8`.",
    ),
    "bad_index": (
        "tables[x].dim=3",
        "`tables[x].dim=3` must have the form `key.path=value`, such as "
        "`trainer.max_steps=200` or `tables[0].dim=8`.",
    ),
}


@pytest.mark.parametrize(
    ("override", "message"), _OVERRIDE_ERRORS.values(), ids=list(_OVERRIDE_ERRORS)
)
def test_override_errors(override, message):
    assert errors_of(GOOD, override) == [f"command line: {message}"]


def test_a_file_that_is_not_there():
    with pytest.raises(config_lib.ConfigError) as caught:
        config_lib.load_config("no/such.yaml")
    assert str(caught.value) == "no/such.yaml: The file does not exist."


def test_a_folder(tmp_path):
    with pytest.raises(config_lib.ConfigError) as caught:
        config_lib.load_config(tmp_path)
    assert str(caught.value) == f"{tmp_path}: The file cannot be read (Is a directory)."


def test_a_file_that_is_not_text(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_bytes(b"seed: \xff")
    with pytest.raises(config_lib.ConfigError) as caught:
        config_lib.load_config(path)
    assert str(caught.value) == f"{path}: The file is not UTF-8 at byte 6."


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"])
def test_an_empty_file(text):
    (line,) = errors_of(text)
    assert line in (
        f"{SOURCE}: The config is empty.",
        f"{SOURCE}:2: must be a mapping. Received: null.",
    )


def test_a_file_that_is_a_list():
    assert errors_of("- 1\n") == [f"{SOURCE}:1: must be a mapping. Received: a list."]


def test_alias_tricks():
    laughs = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}]\n"
        for a, b in zip("abcdefg", "bcdefgh", strict=True)
    )
    (line,) = errors_of(laughs)
    assert line.endswith(
        "The config has more than 100000 values, counting aliases in full."
    )
    (line,) = errors_of("a: &a [*a]\n")
    assert line.endswith(
        "The config is nested more than 50 deep, counting aliases in full."
    )
    (line,) = errors_of("a: &a {<<: *a}\n")
    assert line.endswith("The config includes itself by an alias.")
    (line,) = errors_of("[" * 5000)
    assert line.endswith("The config is nested more than 50 deep.")


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert config_lib.load_config(path, data="ignored").seed == 7


def test_tensorflow_is_not_imported():
    code = (
        "import sys; from monolith_tf import config; "
        f"config.load_config({str(DATA / 'assembled.yaml')!r}); "
        "config.json_schema(); sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
