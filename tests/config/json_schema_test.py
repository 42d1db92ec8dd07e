import json

from monolith_tf import config as config_lib

SCHEMA = config_lib.json_schema()
SPECS = SCHEMA["$defs"]


def test_it_is_json():
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_keys_are_those_of_a_config():
    assert {"model_dir", "data", "features", "tables", "trainer"} <= set(
        SCHEMA["properties"]
    )
    assert SCHEMA["additionalProperties"] is False
    assert set(SCHEMA["required"]) == {"model_dir", "data", "features", "model"}
    assert {"class", "blocks", "heads"} <= set(SPECS["ModelSpec"]["properties"])


def test_values_are_described():
    trainer = SPECS["TrainerSpec"]
    assert trainer["description"].startswith("How a model is trained")
    assert "Attributes" not in trainer["description"]
    assert trainer["properties"]["keep_best"]["description"].startswith(
        "Metric, named as in `early_stop`, by which the best checkpoint is kept"
    )
    missing = [
        key for key, of in trainer["properties"].items() if not of["description"]
    ]
    assert not missing


def test_short_forms_are_allowed():
    assert {"type": "string"} in SCHEMA["properties"]["model"]["anyOf"]
    assert {"type": "string"} in SCHEMA["properties"]["labels"]["items"]["anyOf"]
    inputs = SPECS["BlockSpec"]["properties"]["inputs"]["anyOf"]
    assert {"type": "string"} in inputs
    choices = SPECS["SliceSpec"]["properties"]["optimizer"]["oneOf"]
    assert "adagrad" in choices[0]["enum"]


def test_the_default_table_needs_no_name():
    assert "name" in SPECS["TableSpec"]["required"]
    assert "name" not in SPECS["DefaultTable"]["required"]
    assert {"$ref": "#/$defs/DefaultTable"} in (
        SCHEMA["properties"]["default_table"]["anyOf"]
    )
