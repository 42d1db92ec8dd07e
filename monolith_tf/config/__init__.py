"""Configs of jobs: YAML in, one frozen `ExperimentConfig` out."""

from monolith_tf import _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    {
        "ConfigError": "errors",
        "ExperimentConfig": "schema",
        "Problem": "errors",
        "check_config": "checks",
        "columns": "schema",
        "dump_config": "dump",
        "json_schema": "json_schema",
        "load_config": "load",
        "parse_config": "load",
        "resolved_tables": "schema",
    },
)
