"""The services from which a program on AWS gets credentials: of an instance (IMDSv2) and of a container (EKS)."""

import datetime
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Clients renew credentials this long before their end.
EARLY_S = 300


class Metadata:
    """Hands out MinIO's temporary credentials, each good for `life_s`, and says that they end so that a client comes for
    new ones after half of it. While `away` it answers 500."""

    def __init__(self, port, minio, life_s):
        self.port, self.minio, self.life_s = port, minio, life_s
        self.given, self.away = 0, False
        self.server = ThreadingHTTPServer(("127.0.0.1", port), type("Handler", (_Handler,), {"metadata": self}))
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def credentials(self) -> dict[str, str]:
        made = self.minio.credentials(self.life_s)
        self.given += 1
        end = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=EARLY_S + self.life_s / 2)
        return {
            "AccessKeyId": made["AccessKeyId"],
            "SecretAccessKey": made["SecretAccessKey"],
            "Token": made["SessionToken"],
            "Expiration": end.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "Code": "Success",
        }

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    metadata: Metadata

    def log_message(self, *_):
        pass

    def do_PUT(self):
        self.answer("token")

    def do_GET(self):
        roles = self.path.rstrip("/").endswith("/security-credentials")
        self.answer("role" if roles else json.dumps(self.metadata.credentials()))

    def answer(self, text):
        body = b"" if self.metadata.away else text.encode()
        self.send_response(500 if self.metadata.away else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
