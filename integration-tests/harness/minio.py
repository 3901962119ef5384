"""A real MinIO server with one bucket, spoken to with signed requests of our own."""

import datetime
import hashlib
import hmac
import http.client
import json
import re
import urllib.parse
from pathlib import Path

from .processes import CACHE, Child, free_port, wait_until

USER, PASSWORD, REGION = "strandline-test", "strandline-test-secret", "us-east-1"
KEYS = ("AccessKeyId", "SecretAccessKey", "SessionToken")


class Minio:
    def __init__(self, directory: Path, bucket="strandline", *, everywhere=False):
        """With `everywhere` also for those who do not come by loopback."""
        self.directory = Path(directory)
        self.listens = "" if everywhere else "127.0.0.1"
        self.bucket = bucket
        self.port = free_port()
        self.child: Child | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> "Minio":
        (self.directory / "data").mkdir(parents=True, exist_ok=True)
        self.child = Child(
            [CACHE / "bin/minio", "server", "--quiet", "--address", f"{self.listens}:{self.port}", self.directory / "data"],
            log=self.directory / "minio.log",
            env={
                "MINIO_ROOT_USER": USER,
                "MINIO_ROOT_PASSWORD": PASSWORD,
                "MINIO_BROWSER": "off",
                "HOME": str(self.directory),
            },
        )
        wait_until(lambda: self.request("GET", "/")[0] == 200, 30, "MinIO's first answer")
        status, body = self.request("PUT", f"/{self.bucket}")
        assert status == 200 or b"BucketAlreadyOwnedByYou" in body, body
        return self

    def stop(self):
        if self.child:
            self.child.terminate(10)

    def config(self, prefix="", endpoint=None) -> dict:
        """The `bucket` section for this server."""
        return {
            "url": f"s3://{self.bucket}/{prefix}".rstrip("/"),
            "endpoint": endpoint or self.endpoint,
            "region": REGION,
            "access_key_id": USER,
            "secret_access_key": PASSWORD,
            "allow_http": True,
        }

    def objects(self, prefix="") -> dict[str, int]:
        """Name and size of every object."""
        found, token = {}, None
        while True:
            query = {"list-type": "2", "prefix": prefix}
            if token:
                query["continuation-token"] = token
            status, body = self.request("GET", f"/{self.bucket}", query)
            assert status == 200, body
            text = body.decode()
            for entry in re.findall(r"<Contents>.*?</Contents>", text, re.S):
                found[re.search("<Key>(.*?)</Key>", entry)[1]] = int(re.search("<Size>(.*?)</Size>", entry)[1])
            more = re.search("<NextContinuationToken>(.*?)</NextContinuationToken>", text)
            if not more:
                return found
            token = more[1]

    def credentials(self, life_s) -> dict[str, str]:
        """Temporary ones by STS. They live 15 minutes, which is the least; a policy ends them after `life_s`."""
        end = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=life_s)
        condition = {"DateLessThan": {"aws:CurrentTime": end.strftime("%Y-%m-%dT%H:%M:%SZ")}}
        allow = {"Effect": "Allow", "Action": ["s3:*"], "Resource": ["arn:aws:s3:::*"], "Condition": condition}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [allow]})
        form = {"Action": "AssumeRole", "Version": "2011-06-15", "DurationSeconds": "900", "Policy": policy}
        status, body = self.request("POST", "/", body=urllib.parse.urlencode(form).encode(), service="sts")
        assert status == 200, body
        return {name: re.search(f"<{name}>(.*?)</{name}>", body.decode())[1] for name in KEYS}

    def request(self, method, path, query=None, body=b"", service="s3") -> tuple[int, bytes]:
        """One request with AWS's version 4 signature."""
        now = datetime.datetime.now(datetime.timezone.utc)
        stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
        host = f"127.0.0.1:{self.port}"
        digest = hashlib.sha256(body).hexdigest()
        encoded = "&".join(
            f"{urllib.parse.quote(k, safe='')}={urllib.parse.quote(v, safe='')}"
            for k, v in sorted((query or {}).items())
        )
        headers = {"host": host, "x-amz-content-sha256": digest, "x-amz-date": stamp}
        signed = ";".join(headers)
        canonical = "\n".join([method, path, encoded, *(f"{k}:{v}" for k, v in headers.items()), "", signed, digest])
        scope = f"{day}/{REGION}/{service}/aws4_request"
        to_sign = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
        key = f"AWS4{PASSWORD}".encode()
        for part in (day, REGION, service, "aws4_request"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        signature = hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={USER}/{scope}, SignedHeaders={signed}, Signature={signature}"
        )
        if service == "sts":
            headers["content-type"] = "application/x-www-form-urlencoded"
        connection = http.client.HTTPConnection(host, timeout=10)
        try:
            connection.request(method, path + (f"?{encoded}" if encoded else ""), body or None, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()
