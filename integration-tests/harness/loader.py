"""An idempotent producer that goes on while its broker dies and comes back; a process of its own.

    loader.py BOOTSTRAP TOPIC PARTITIONS NAME FILE RENEW

Record n of a partition is `NAME:partition:n`. Each acknowledgement is a line `partition n offset` in FILE. With RENEW > 0
a new producer id is taken after that many records. Ends on SIGTERM, after everything sent has been acknowledged.
"""

import signal
import sys
import time

from confluent_kafka import Producer

IN_FLIGHT_MAX = 400


def main():
    bootstrap, topic, partitions, name, path, renew = sys.argv[1:]
    partitions, renew = int(partitions), int(renew)
    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
    counters = [0] * partitions
    fatal = []

    def fresh():
        return Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "linger.ms": 2,
                "batch.num.messages": 50,
                "message.timeout.ms": 0,  # forever: a broker that comes back must take up where it was
                "socket.timeout.ms": 10000,
                "reconnect.backoff.max.ms": 200,
                "retry.backoff.ms": 50,
                "error_cb": lambda error: fatal.append(str(error)) if error.fatal() else None,
                "log_level": 0,
            }
        )

    with open(path, "w", buffering=1) as acknowledged:

        def delivered(n):
            def done(error, message):
                if error:
                    fatal.append(f"{message.partition()} {n}: {error}")
                else:
                    acknowledged.write(f"{message.partition()} {n} {message.offset()}\n")

            return done

        producer, sent = fresh(), 0
        while not stop and not fatal:
            if renew and sent and sent % renew == 0:
                while len(producer) and not fatal and not stop:
                    producer.poll(0.05)
                if stop:
                    break
                producer = fresh()
            while len(producer) > IN_FLIGHT_MAX and not fatal:
                producer.poll(0.01)
            partition = sent % partitions
            n = counters[partition]
            counters[partition] += 1
            value = f"{name}:{partition}:{n}".encode()
            producer.produce(topic, value, key=name.encode(), partition=partition, on_delivery=delivered(n))
            sent += 1
            if sent % 20 == 0:
                producer.poll(0)
                time.sleep(0.005)
        deadline = time.monotonic() + 40
        while len(producer) and not fatal and time.monotonic() < deadline:
            producer.poll(0.1)
        if fatal or len(producer):
            acknowledged.write(f"FATAL {fatal or 'unacknowledged at the end'}\n")
            sys.exit(1)


main()
