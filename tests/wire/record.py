#!/usr/bin/env python3
"""Records what clients say to a Kafka broker: a proxy that keeps one exchange per API, version and shape.

    python3 tests/wire/record.py LISTEN_PORT BROKER_PORT OUT.txt

The broker must advertise LISTEN_PORT, so that clients come back to the proxy. Each line of OUT.txt is the API key, the
version, the request frame and the response frame in hex, without their sizes ("-" if there was no response). Written
when the proxy gets SIGTERM or SIGINT. Frames over 2,000 bytes are left out; of each (key, version) the shortest
exchange and the longest are kept.
"""
import asyncio
import contextlib
import signal
import struct
import sys

FRAME_BYTES_MAX = 2000
exchanges = {}


def keep(request, response):
    if len(request) > FRAME_BYTES_MAX or len(response) > FRAME_BYTES_MAX:
        return
    kept = exchanges.setdefault(struct.unpack(">hh", request[:4]), [])
    kept.append((request, response))
    kept.sort(key=lambda exchange: len(exchange[0]) + len(exchange[1]))
    del kept[1:-1]


async def frames(reader, writer, seen):
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            size = await reader.readexactly(4)
            frame = await reader.readexactly(struct.unpack(">i", size)[0])
            seen(frame)
            writer.write(size + frame)
            await writer.drain()
    writer.close()


async def connection(reader, writer, broker_port):
    broker_reader, broker_writer = await asyncio.open_connection("127.0.0.1", broker_port)
    waiting = {}

    def request(frame):
        waiting[frame[4:8]] = frame

    def response(frame):
        if frame[:4] in waiting:
            keep(waiting.pop(frame[:4]), frame)

    await asyncio.gather(frames(reader, broker_writer, request), frames(broker_reader, writer, response))
    for frame in waiting.values():
        keep(frame, b"")


async def main():
    listen_port, broker_port, out = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    server = await asyncio.start_server(lambda r, w: connection(r, w, broker_port), "127.0.0.1", listen_port)
    done = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, done.set)
    await done.wait()
    server.close()
    with open(out, "w") as file:
        for (key, version), kept in sorted(exchanges.items()):
            for request, response in kept:
                print(key, version, request.hex(), response.hex() or "-", file=file)


asyncio.run(main())
