"""Memory and lag of a job on a topic, minute by minute, while its ids keep changing.

    scripts/bench soak [--minutes 60] [--rate 2000] [--drift 20] [--write]

A broker, a producer, the job and `monolith-tf serve` run on this machine; the job
publishes each second. The ids of each of 26 features move on by `drift` a second, and
rows that were not updated for 600 steps expire. The memory of the job and of the server
must stay flat, and the lag bounded. `--write` puts the table into
`docs/streams_benchmark.md`.
"""

import contextlib
import dataclasses
import json
import pathlib
import sys
import tempfile
import time

from freshness_sides import events
from freshness_sides import job
from sides import options
from sides import report

from monolith_tf.testing import kafka_broker

_TOPIC = "events"
_HEAD = (
    *("minute", "job RSS, MB", "server RSS, MB", "rows", "expired"),
    *("lag, events", "lag s", "newest publish s"),
)


def main() -> None:
    """Runs the benchmark."""
    parser = options.parser(__doc__, rounds=1)
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--rate", type=float, default=2_000)
    parser.add_argument("--drift", type=float, default=20)
    parser.add_argument("--rows", type=int, default=500_000)
    arguments = parser.parse_args()
    case = events.Case(
        rows=arguments.rows, drift=arguments.drift, expire_after_steps=600
    )
    rows = []
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        broker = stack.enter_context(kafka_broker.KafkaBroker())
        broker.create(_TOPIC, case.partitions)
        config = job.write(case, folder)
        job.run("train", config)
        job.run("export", config)
        server, address = stack.enter_context(job.server(folder / "model/export"))
        trainer = stack.enter_context(
            job.trainer(config, broker.address, _TOPIC, address)
        )
        stack.enter_context(job.producer(case, broker.address, _TOPIC, arguments.rate))
        begin = time.monotonic()
        for minute in range(1, arguments.minutes + 1):
            time.sleep(max(begin + 60 * minute - time.monotonic(), 0))
            if trainer.poll() is not None or server.poll() is not None:
                log = (folder / "trainer.log").read_text(encoding="utf-8")
                raise RuntimeError(f"The job or the server ended:\n{log[-3000:]}")
            rows.append([str(minute), *_figures(folder, trainer.pid, server.pid)])
            print(*rows[-1], file=sys.stderr, flush=True)
    about = report.machine("confluent-kafka", "grpcio")
    text = (
        f"{about}\n\n{dataclasses.asdict(case)}, {arguments.rate:,.0f} events/s.\n\n"
        f"{report.table(_HEAD, rows)}"
    )
    page = "streams_benchmark.md" if arguments.write else None
    report.give(page, "soak", text)
    report.write_json(arguments.json)


def _figures(folder: pathlib.Path, trainer: int, server: int) -> list[str]:
    """Returns the cells of a minute."""
    last: dict[str, dict] = {}
    path = folder / "model/metrics.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        last[record["phase"]] = record
    tables, stream = last.get("tables", {}), last.get("stream", {})
    publish = last.get("publish", {})
    ages = [value for name, value in publish.items() if name.endswith("/age_secs")]
    return [
        f"{_resident_mb(trainer):,.0f}",
        f"{_resident_mb(server):,.0f}",
        f"{_sum(tables, 'rows'):,}",
        f"{_sum(tables, 'expired'):,}",
        f"{stream.get('lag', -1):,}",
        f"{stream.get('lag_secs', -1):.2f}",
        f"{max(ages, default=-1):.2f}",
    ]


def _sum(tables: dict, counter: str) -> int:
    return sum(v for name, v in tables.items() if name.endswith(f"/{counter}"))


def _resident_mb(pid: int) -> float:
    status = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    line = next(one for one in status.splitlines() if one.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
