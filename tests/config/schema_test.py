import pathlib

import pytest

from monolith_tf import config as config_lib
from monolith_tf.config import schema

ASSEMBLED = pathlib.Path(__file__).parent / "testdata" / "assembled.yaml"


def test_tables_of_features_that_name_none():
    config = config_lib.load_config(ASSEMBLED)
    tables = config_lib.resolved_tables(config)
    assert [table.name for table in tables] == ["sliced", "user", "history"]
    assert [table.row_dim for table in tables] == [9, 8, 8]
    assert [table.slot for table in tables] == [None, None, None]


def test_a_table_of_the_features_name_comes_before_the_default():
    config = config_lib.load_config(
        ASSEMBLED,
        [
            "tables=[{name: user, dim: 3}]",
            "features[1].table=user",
            "model={class: 'm:M'}",
        ],
    )
    tables = {table.name: table for table in config_lib.resolved_tables(config)}
    assert sorted(tables) == ["history", "user"]
    assert tables["user"].dim == 3


def test_columns():
    columns = config_lib.columns(config_lib.load_config(ASSEMBLED))
    assert [(c.feature, c.table, c.combiner, c.max_length) for c in columns] == [
        ("user", "user", "sum", None),
        ("item", "sliced", "sum", None),
        ("history", "history", "first_n", 5),
    ]


def test_features_of_tables():
    config = config_lib.load_config(ASSEMBLED, ["features[0].table=sliced"])
    assert schema.features_of_tables(config) == {
        "sliced": ("user", "item"),
        "history": ("history",),
    }


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model_dir=''", "`model_dir` must not be empty. Received: model_dir=''."),
        ("features=[]", "`features` must have at least one entry. Received: none."),
        ("seed=-3", "`seed` must be in [0, 2^63). Received: seed=-3."),
    ],
)
def test_errors(override, message):
    with pytest.raises(config_lib.ConfigError) as caught:
        config_lib.load_config(ASSEMBLED, [override])
    key = override.partition("=")[0]
    assert str(caught.value) == f"command line: `{key}`: {message}"
