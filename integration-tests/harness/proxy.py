"""A store that misbehaves on command: an HTTP proxy in front of a real one."""

import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CODES = {503: "SlowDown", 403: "AccessDenied", 409: "OperationAborted", 500: "InternalError"}
HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


class Proxy:
    """`mode` is how requests end from now on:

    "pass"          as the store answers;
    "hang"          not at all, until the mode changes; then the connection is closed;
    503, 403 …      with this status, without reaching the store;
    "lost"          the store does it, and the connection is closed without an answer;
    "reset"         likewise, and the connection is reset;
    "done-503"      the store does it, and the answer is a 503;
    "late"          as the store answers, up to half a second later;
    "cut"           the answer's body breaks off in the middle;
    "flipped"       one bit of an object with records is wrong in the answer (a starting broker that reads others
                    wrongly does not start).

    `methods` limits a misbehaviour to some methods, `every` to each n-th of those requests. `chances` sets the chance of
    each misbehaviour by method instead. `done` counts them by method and mode, where the store did its part if it is one
    that asks the store.
    """

    def __init__(self, port, target_port):
        self.port, self.target_port = port, target_port
        self.mode, self.methods, self.every = "pass", None, 1
        self.changed = threading.Condition()
        self.counts = {}
        self.spoiled = 0
        self.by_method, self.chance, self.done = {}, random.Random(), Counter()
        handler = type("Handler", (_Handler,), {"proxy": self})
        self.server = _Server(("127.0.0.1", port), handler)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.port}"

    def set(self, mode, *, methods=None, every=1):
        with self.changed:
            self.mode, self.methods, self.every, self.by_method = mode, methods, every, {}
            self.changed.notify_all()

    def chances(self, seed, by_method):
        """`by_method`: for each method its modes and their chances, which add up to 1 at most; the rest passes."""
        with self.changed:
            self.chance, self.by_method = random.Random(seed), by_method

    def count(self, method, mode):
        with self.changed:
            self.done[method, mode] += 1

    def mode_for(self, method):
        with self.changed:
            self.counts[method] = self.counts.get(method, 0) + 1
            if self.by_method:
                modes = self.by_method.get(method, {})
                weights = [*modes.values(), 1 - sum(modes.values())]
                return self.chance.choices([*modes, "pass"], weights)[0]
            if self.mode == "pass" or (self.methods and method not in self.methods) or self.counts[method] % self.every:
                return "pass"
            self.spoiled += 1
            return self.mode

    def stop(self):
        self.set("pass")
        self.server.shutdown()
        self.server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        pass  # clients that hang up are what this is for


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy
    upstream = None

    def log_message(self, *_):
        pass

    def handle_any(self):
        mode = self.proxy.mode_for(self.command)
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if mode == "hang":
            self.hang()
        elif isinstance(mode, int):
            self.proxy.count(self.command, mode)
            self.fail(mode)
        else:
            if mode == "late":
                time.sleep(random.uniform(0, 0.5))
            status, headers, answer = self.forward(body)
            if mode != "pass" and status < 300:
                self.proxy.count(self.command, mode)
            if mode in ("lost", "reset"):
                self.drop(mode == "reset")
            elif mode == "done-503":
                self.fail(503)
            else:
                self.reply(status, headers, answer, mode)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any

    def hang(self):
        deadline = time.monotonic() + 600
        with self.proxy.changed:
            while self.proxy.mode == "hang" and time.monotonic() < deadline:
                self.proxy.changed.wait(1)
        self.close_connection = True

    def drop(self, reset):
        if reset:  # what is not sent yet is thrown away, and the other side hears of it
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def fail(self, status):
        body = f"<?xml version='1.0'?><Error><Code>{CODES[status]}</Code><Message>made by a test</Message></Error>".encode()
        self.reply(status, [("content-type", "application/xml")], body)

    def forward(self, body):
        for attempt in (0, 1):
            if self.upstream is None:
                self.upstream = http.client.HTTPConnection("127.0.0.1", self.proxy.target_port, timeout=30)
            try:
                self.upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    self.upstream.putheader(name, value)
                self.upstream.endheaders(body or None)
                answer = self.upstream.getresponse()
                return answer.status, answer.getheaders(), answer.read()
            except (http.client.HTTPException, OSError):
                self.upstream.close()
                self.upstream = None
                if attempt:
                    raise

    def reply(self, status, headers, body, mode="pass"):
        self.send_response_only(status)
        lengths = [v for k, v in headers if k.lower() == "content-length"]
        for name, value in headers:
            if name.lower() not in HOP:
                self.send_header(name, value)
        head = self.command == "HEAD"
        self.send_header("content-length", lengths[0] if head and lengths else str(len(body)))
        self.end_headers()
        if head:
            return
        if mode == "flipped" and body and "/data/" in self.path:
            body = bytearray(body)
            body[random.randrange(len(body))] ^= 1 << random.randrange(8)
        if mode == "cut":
            body = body[: random.randrange(max(1, len(body)))]
            self.close_connection = True
        self.wfile.write(body)
