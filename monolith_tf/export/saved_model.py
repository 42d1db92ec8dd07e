"""SavedModels that a stock TF Serving loads: raw features in, predictions out."""

import dataclasses
import pathlib
import shutil
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from absl import logging

from monolith_tf.embedding.frozen import files as frozen_files
from monolith_tf.embedding.frozen import survey as frozen_survey
from monolith_tf.embedding.frozen.store import Rows
from monolith_tf.export import clean_process
from monolith_tf.export import graph
from monolith_tf.export import metadata
from monolith_tf.export import servable as servable_lib
from monolith_tf.export import signatures
from monolith_tf.export import updates as updates_lib
from monolith_tf.export import verify
from monolith_tf.export import versions
from monolith_tf.export import warmup
from monolith_tf.export.spec import ExportSpec
from monolith_tf.features import columns as columns_lib
from monolith_tf.features.columns import ColumnType
from monolith_tf.lineage import Lineage
from monolith_tf.models.frozen_network import FrozenNetwork
from monolith_tf.types import JsonDict
from monolith_tf.types import JsonMapping
from monolith_tf.types import Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin:
    """The job and step that an export comes from.

    Attributes:
      lineage: The training job's; without one the export takes no updates.
      step: The global step of the exported values.
      reading: How the job's files are read, as `data.spec.reading_part` returns it;
        None if unknown.
    """

    lineage: Lineage = dataclasses.field(default_factory=Lineage)
    step: int = 0
    reading: JsonMapping | None = None


_DEFAULT = ExportSpec()
_UNKNOWN = Origin()


def export(
    network: FrozenNetwork,
    columns: Mapping[str, ColumnType],
    directory: str | pathlib.Path,
    *,
    rows: Callable[[], Rows] | None = None,
    spec: ExportSpec = _DEFAULT,
    sample: Mapping[str, Tensor] | None = None,
    origin: Origin = _UNKNOWN,
) -> pathlib.Path:
    """Writes `<directory>/<version>/` atomically, if its answers are correct.

    Args:
      network: The network.
      columns: The raw features it reads.
      directory: The folder of the versions. The new version is the current UTC time in
        seconds, or one more than the highest existing one.
      rows: Returns the rows of an empty store, which are written to disk chunk by
        chunk; called twice. None exports the rows in the store.
      spec: The signatures, and how many versions to keep.
      sample: Raw columns of real rows, numpy arrays or ragged tensors, on which the
        export must match the network; None publishes without a check.
      origin: The job and step, for the export's metadata.

    Returns:
      The version's folder.

    Raises:
      ExportError: If a stock server would refuse the graph, or the export's answers
        differ from the network's. Nothing is published then.
    """
    temporary = versions.make_temporary(pathlib.Path(directory))
    making = _Export(network, columns, rows, spec, sample, origin)
    try:
        making.write(temporary)
        return versions.publish(temporary, spec.keep_versions)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


class _Export:
    """One export in progress."""

    def __init__(
        self,
        network: FrozenNetwork,
        columns: Mapping[str, ColumnType],
        rows: Callable[[], Rows] | None,
        spec: ExportSpec,
        sample: Mapping[str, Tensor] | None,
        origin: Origin,
    ) -> None:
        self._network = network
        self._columns = columns
        self._rows = rows
        self._spec = spec
        self._sample = {name: sample[name] for name in columns} if sample else None
        self._origin = origin

    def write(self, path: pathlib.Path) -> None:
        """Writes a whole SavedModel."""
        network, spec = self._network, self._spec
        counted, updates = None, None
        if self._rows is not None:
            wanted = self._sample_ids()
            counted = frozen_survey.survey(network.store, self._rows(), wanted)
            for name, table in counted.tables.items():
                if table.clipped:
                    logging.warning(
                        "Table `%s`: %d rows have numbers out of range for its "
                        "`compressor`, and are served clipped.",
                        name,
                        table.clipped,
                    )
            if spec.spare_rows:
                updates = updates_lib.Updates(
                    network.store,
                    [counted.rows(frozen.group) for frozen in network.store.groups],
                    self._origin.step,
                    self._origin.lineage,
                )
            else:  # With updates, later integers may have any size.
                ranges = counted.ranges(network.store.integers)
                store = network.store.emptied(exact=False, ranges=ranges)
                network = FrozenNetwork.of(network, store)
        servable = servable_lib.Servable(network, self._columns, spec, updates)
        tf.saved_model.save(servable, str(path), signatures=servable.trace())
        if self._rows is not None and counted is not None:
            frozen_files.write(
                network.store,
                str(path / "variables" / "variables"),
                "tables",
                self._rows,
                counted,
                spare_rows=spec.spare_rows,
            )
        methods = {key: s.method for key, s in servable.signatures.items()}
        graph.finish(path, methods)
        graph.check(path)
        difference = self._verify(path, servable, counted)
        metadata.write(path, self._metadata(path, servable, counted, difference))

    def _sample_ids(self) -> dict[str | None, np.ndarray]:
        """Returns all ids of the sample, in the form for `frozen_survey.survey`."""
        if self._sample is None:
            return {}
        encoder = self._network.encoder
        found: dict[str | None, list[Tensor]] = {}
        for feature, ids in encoder.encode(self._sample).ids.items():
            flat = ids.flat_values if isinstance(ids, tf.RaggedTensor) else ids
            found.setdefault(encoder.exact_table(feature), []).append(flat)
        return {table: np.concatenate(ids) for table, ids in found.items()}

    def _answer(
        self, counted: frozen_survey.Survey | None, exact: bool
    ) -> signatures.Answer:
        """Returns the answer function of the network with only the sample's rows."""
        network = self._network
        if counted is not None:
            store = network.store.emptied(exact=exact)
            store.fill(counted.wanted)
            network = FrozenNetwork.of(network, store)
        function: signatures.Answer = tf.function(servable_lib.answer_function(network))
        return function

    def _verify(
        self,
        path: pathlib.Path,
        servable: servable_lib.Servable,
        counted: frozen_survey.Survey | None,
    ) -> float | None:
        """Checks all signatures; returns the largest change through compression."""
        sample, spec = self._sample, self._spec
        if sample is None:
            return None
        requests = {k: s.request(sample) for k, s in servable.signatures.items()}
        answers = clean_process.ask(path, list(requests.items()))
        answer = self._answer(counted, exact=False)
        for (key, signature), found in zip(
            servable.signatures.items(), answers, strict=True
        ):
            verify.compare(key, found, signature.expected(sample, answer))
        if spec.warmup_rows:
            self._write_warmup(path, servable, answers)
        exact = self._answer(counted, exact=True)
        first = servable.signatures[servable_lib.PREDICT_KEY]
        return verify.largest_difference(answers[0], first.expected(sample, exact))

    def _write_warmup(
        self,
        path: pathlib.Path,
        servable: servable_lib.Servable,
        answers: Sequence[Mapping[str, np.ndarray]],
    ) -> None:
        """Writes requests that a server with batching can answer too."""
        sample = self._sample or {}
        size = signatures.num_rows(sample)
        count = min(self._spec.warmup_rows, warmup.MAX_ROWS)
        if count < min(self._spec.warmup_rows, size):
            logging.warning(
                "Warm-up requests have %d rows, not the %d of `export.warmup_rows`: a "
                "server with batching accepts at most its `max_batch_size`.",
                count,
                self._spec.warmup_rows,
            )
        few = {name: value[:count] for name, value in sample.items()}
        warmup.write(
            path,
            {
                key: (signature.method, signature.request(few))
                for (key, signature), answer in zip(
                    servable.signatures.items(), answers, strict=True
                )
                if signature.joins_rows
                and all(value.shape[:1] == (size,) for value in answer.values())
            },
        )

    def _metadata(
        self,
        path: pathlib.Path,
        servable: servable_lib.Servable,
        counted: frozen_survey.Survey | None,
        difference: float | None,
    ) -> JsonDict:
        spec, reading = self._spec, self._origin.reading
        store, flat = servable.tables, servable.flat
        user = set(spec.user_features)
        features = self._network.encoder.features
        id_types = columns_lib.id_types(features, self._columns)
        return {
            "job": self._origin.lineage.job,
            "lineage": self._origin.lineage.to_json(),
            "step": self._origin.step,
            "columns": {
                name: {
                    "dtype": kind.dtype,
                    "is_list": kind.is_list,
                    "length": kind.length,
                    "default": kind.default,
                    **({"is_guess": True} if kind.is_guess else {}),
                    **({} if kind.is_truth is None else {"is_truth": kind.is_truth}),
                }
                for name, kind in self._columns.items()
            },
            **({} if reading is None else {"reading": dict(reading)}),
            "list_inputs": spec.list_inputs,
            "user_columns": sorted(
                {f.source_column for f in features if f.name in user}
            ),
            "tables": {
                table.name: {
                    "slot": table.slot,
                    "id_type": id_types.get(table.name),
                    "large_integers": table.large_integers,
                    "dim": frozen.group.dim,
                    "group": number,
                    **(_counts(counted.tables[table.name]) if counted else {}),
                    "slices": [
                        {
                            "name": part.name,
                            "dim": part.dim,
                            "compressor": part.compressor,
                            "int8_range": part.int8_range,
                        }
                        for part in table.row_slices()
                    ],
                }
                for number, frozen in enumerate(store.groups)
                for table in frozen.group.tables
            },
            "groups": [
                {
                    "rows": counted.rows(frozen.group),
                    "dropped_rows": counted.dropped(frozen.group),
                    "capacity": counted.rows(frozen.group) + spec.spare_rows,
                }
                for frozen in store.groups
            ]
            if counted
            else [],
            **({} if flat is None else {"dense": flat.layout.to_json()}),
            "bytes": sum(f.stat().st_size for f in path.rglob("*") if f.is_file()),
            "largest_difference": difference,
        }


def _counts(counted: frozen_survey.Counted) -> dict[str, int]:
    return {"rows": counted.rows, "dropped_rows": counted.dropped}
