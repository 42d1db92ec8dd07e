"""Tables without rows take little memory, however many there are."""

import os
import subprocess
import sys

import pytest

_PEAK_BYTES = 2 << 30

_LAYERS = """
layers = [embedding.Embedding(16, optimizer="adam") for _ in range(300)]
for layer in layers:
    layer.build(None)
"""

_STORE = """
tables = [embedding.TableSpec(name=f"t{i}", slot=i, dim=16) for i in range(1000)]
columns = [embedding.ColumnSpec(feature=t.name, table=t.name) for t in tables]
store = embedding.EmbeddingStore(tables, columns)
assert len(store.describe()) == 1000
"""

_SHARED = """
layer = embedding.SharedEmbedding(
    [{"name": f"t{i}", "output_dim": 16} for i in range(500)],
    {f"f{i}": f"t{i}" for i in range(500)},
)
layer.build(None)
"""

_PROGRAM = """
import resource
import monolith_tf
embedding = monolith_tf.embedding
CODE
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "code", [_LAYERS, _STORE, _SHARED], ids=["keras", "store", "shared"]
)
def test_many_tables_build_in_little_memory(code):
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM.replace("CODE", code)],
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    print(f"peak: {int(done.stdout) >> 20} MiB")
    assert int(done.stdout) < _PEAK_BYTES
