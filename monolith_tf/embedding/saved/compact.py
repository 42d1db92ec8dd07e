"""Writes a full set of rows and later changes as one full set, without TensorFlow."""

from collections.abc import Sequence

from monolith_tf.embedding.saved import files
from monolith_tf.embedding.saved import layout
from monolith_tf.embedding.saved import merge
from monolith_tf.embedding.saved import raw_layer
from monolith_tf.types import JsonDict


def write(directory: str, layers: Sequence[str]) -> JsonDict:
    """Writes what layers hold together; memory is that of `merge` and one chunk.

    The result has the id of the newest layer: later changes follow it as they follow
    that one.

    Args:
      directory: A new or empty directory.
      layers: Directories of saved rows, oldest first; the first one is full.

    Returns:
      The manifest.

    Raises:
      ValueError: If a layer is damaged, or they do not have one layout.
    """
    read = [raw_layer.RawLayer(layer) for layer in layers]
    newest = read[-1]
    for layer in read:
        if layout.of(layer.manifest) != layout.of(newest.manifest):
            raise ValueError(
                f"{layer.directory} holds other tables than {newest.directory}: they "
                "cannot be made one. Train on: the next checkpoint is a whole one."
            )
    full = {"format": files.FORMAT, "follows": None, "since_step": None}
    manifest = {**newest.manifest, **full, "groups": []}
    groups: dict[str, _Group] = {}
    for number, group in enumerate(newest.groups()):
        groups[group.name] = _Group(directory, number, group.entry)
    for group, chunk in merge.rows(read):
        writer = groups[group.name].rows
        stamps = [chunk.stamps[name] for name in group.entry["stamps"]]
        for array in (chunk.ids, chunk.weights, chunk.state, *stamps):
            writer.save(array)
        groups[group.name].num_rows += len(chunk.ids)
    for group, ids, counts in merge.counts(read):
        if len(ids):
            groups[group.name].counts.save(ids)
            groups[group.name].counts.save(counts)
    for name, one in groups.items():
        entry = next(g.entry for g in newest.groups() if g.name == name)
        kept = files.read_sketches(newest.directory, entry)
        sketches = [
            {
                **{k: former[k] for k in ("modulus", "residue") if k in former},
                **files.write_sketch(
                    directory, former["name"], sketch, is_packed=False
                ),
            }
            for former, sketch in zip(entry["sketch_files"], kept, strict=True)
        ]
        manifest["groups"].append({**one.close(), "sketch_files": sketches})
    files.write_manifest(directory, manifest)
    return manifest


class _Group:
    """The files of a group that are being written.

    Attributes:
      rows: Writes its rows file.
      counts: Writes its counts file.
      num_rows: Rows so far.
    """

    def __init__(self, directory: str, number: int, entry: JsonDict) -> None:
        self._entry = entry
        self.rows = files.ArrayWriter(directory, f"group-{number}.rows")
        self.counts = files.ArrayWriter(directory, f"group-{number}.counts")
        self.num_rows = 0

    def close(self) -> JsonDict:
        """Returns the group's entry in the manifest, without sketches."""
        return {
            **self._entry,
            "rows_files": [{**self.rows.close(), "rows": self.num_rows}],
            "counts_files": [self.counts.close()],
            "removed_files": [],
        }
