"""A store of the kind that can't carry a journal: it speaks S3 and writes over what is there, whatever `If-None-Match` says."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Unconditional:
    def __init__(self, port):
        self.port, self.objects = port, {}
        handler = type("Handler", (_Handler,), {"objects": self.objects})
        self.server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def config(self) -> dict:
        """The `bucket` section for this store, which looks at no signature."""
        return {
            "url": "s3://any/prefix",
            "endpoint": f"http://127.0.0.1:{self.port}",
            "region": "us-east-1",
            "access_key_id": "any",
            "secret_access_key": "any",
            "allow_http": True,
        }

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    objects: dict

    def log_message(self, *_):
        pass

    def do_PUT(self):
        self.objects[self.path] = self.rfile.read(int(self.headers.get("content-length") or 0))
        self.answer(200)

    def do_GET(self):
        self.answer(200 if self.path in self.objects else 404, self.objects.get(self.path, b""))

    def do_DELETE(self):
        self.objects.pop(self.path, None)
        self.answer(204)

    def answer(self, status, body=b""):
        self.send_response(status)
        self.send_header("etag", f'"{hashlib.md5(body).hexdigest()}"')
        self.send_header("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
