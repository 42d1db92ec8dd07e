"""Seconds from an event in a topic until a served prediction follows it.

    scripts/bench freshness [--rates 5000 20000] [--probes 40] [--rows N] [--write]

A broker, a producer, the job and `monolith-tf serve` run on this machine. The job has
26 tables with 5 million rows of dim 16 in all before the stream begins, a DCNv2,
Adagrad, and nothing set of `publish` but the server. For a probe, whose ids occur in no
other event, a run of events without a click is followed by a run with a click; its time
is from sending the first of these until a prediction by gRPC has risen by a tenth of a
logit. The highest rate is that at which the job works off a backlog while it publishes;
a rate above it is not measured, but half of the highest rate is. `--write` puts the
table into `docs/streams_benchmark.md`.
"""

import contextlib
import json
import pathlib
import sys
import tempfile
import time
from collections.abc import Iterator

import numpy as np
from freshness_sides import events
from freshness_sides import job
from freshness_sides import probes
from sides import options
from sides import report

from monolith_tf.testing import kafka_broker

_TOPIC = "events"
_WARM_SECS = 15.0
_BACKLOG = 300_000
_FASTEST = 1e6
_HEAD = ("events/s", "probes", "p50 s", "p90 s", "p99 s", "longest s", "lag, events")


def main() -> None:
    """Runs the benchmark."""
    parser = options.parser(__doc__, rounds=1)
    parser.add_argument("--rates", nargs="*", type=float, default=[5_000, 20_000])
    parser.add_argument("--probes", type=int, default=40)
    parser.add_argument("--interval", type=float, default=1.0)
    options.add_fields(parser, events.Case)
    arguments = parser.parse_args()
    case = events.Case(**options.fields(arguments, events.Case))
    with tempfile.TemporaryDirectory() as name, kafka_broker.KafkaBroker() as broker:
        folder = pathlib.Path(name)
        broker.create(_TOPIC, case.partitions)
        with _running(case, folder, broker.address) as server:
            highest = _highest(case, folder, broker.address)
            print(f"Highest rate: {highest:,.0f} events/s", flush=True)
            rates = sorted({min(rate, highest / 2) for rate in arguments.rates})
            rows = []
            for rate in rates:
                measured = probes.Probes(
                    case,
                    broker.address,
                    _TOPIC,
                    server,
                    len(rows) * arguments.probes,
                    arguments.probes,
                )
                with (
                    contextlib.closing(measured),
                    job.producer(case, broker.address, _TOPIC, rate),
                ):
                    time.sleep(_WARM_SECS)
                    found = measured.measure(arguments.interval)
                    lag = _records(folder)[-1]["lag"]
                figures = [*np.percentile(found, [50, 90, 99]), found.max()]
                rows.append(
                    [
                        f"{rate:,.0f}",
                        str(len(found)),
                        *(f"{value:.2f}" for value in figures),
                        f"{lag:,}",
                    ]
                )
                print(*rows[-1], file=sys.stderr, flush=True)
    about = report.machine("confluent-kafka", "grpcio")
    text = (
        f"{about}\n\n{case.rows:,} rows, batches of {case.batch:,}; highest rate "
        f"{highest:,.0f} events/s.\n\n{report.table(_HEAD, rows)}"
    )
    page = "streams_benchmark.md" if arguments.write else None
    report.give(page, "freshness", text)
    report.write_json(arguments.json)


@contextlib.contextmanager
def _running(case: events.Case, folder: pathlib.Path, brokers: str) -> Iterator[str]:
    """Runs the server and the job; yields the server's address."""
    config = job.write(case, folder)
    job.run("train", config)
    job.run("export", config)
    with (
        job.server(folder / "model/export") as (_, server),
        job.trainer(config, brokers, _TOPIC, server),
    ):
        yield server


def _highest(case: events.Case, folder: pathlib.Path, brokers: str) -> float:
    """Returns the rate at which the job works off a backlog."""
    with job.producer(case, brokers, _TOPIC, _FASTEST, _BACKLOG):
        time.sleep(_BACKLOG / 50_000)
    deadline = time.monotonic() + 600
    while not (found := _records(folder)) or found[-1]["lag"] > case.batch:
        if time.monotonic() > deadline:
            raise RuntimeError("The job does not work off its backlog.")
        time.sleep(1)
    rates = [one["messages_per_sec"] for one in found if one["lag"] > 20 * case.batch]
    return float(np.median(rates[1:]))  # The first one has the tracing.


def _records(folder: pathlib.Path) -> list[dict]:
    path = folder / "model/metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    return [one for one in records if one["phase"] == "stream"]


if __name__ == "__main__":
    main()
