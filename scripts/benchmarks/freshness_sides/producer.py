"""A process that sends events at a rate, up to a number or until its input ends."""

import json
import sys
import threading
import time

import confluent_kafka
from freshness_sides import events


def main(brokers: str, topic: str, rate: float, most: int, case: events.Case) -> None:
    """Sends events; prints how many when standard input ends."""
    producer = confluent_kafka.Producer(
        {
            "bootstrap.servers": brokers,
            "linger.ms": 20,
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    pool = events.Pool(case)
    ended = threading.Event()
    threading.Thread(
        target=lambda: (sys.stdin.read(), ended.set()), daemon=True
    ).start()
    print("ready", flush=True)
    sent, begin = 0, time.monotonic()
    while not ended.is_set():
        seconds = time.monotonic() - begin
        due = min(int(seconds * rate), most)
        while sent < due:
            producer.produce(topic, pool.message(sent, seconds))
            sent += 1
        producer.poll(0)
        time.sleep(0.005)
    producer.flush(30)
    print(sent, time.monotonic() - begin, flush=True)


if __name__ == "__main__":
    _, brokers_, topic_, rate_, most_, case_ = sys.argv
    case_ = events.Case(**json.loads(case_))
    main(brokers_, topic_, float(rate_), int(most_), case_)
