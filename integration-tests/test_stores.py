"""The bucket's contract suite on real servers: MinIO, fake-gcs-server, Azurite. What they deviate in is in docs/stores.md."""

import base64
import email.utils
import hashlib
import hmac
import json
import urllib.error
import urllib.request

import pytest

from harness.minio import PASSWORD, USER
from harness.processes import CACHE, Child, free_port, wait_until
from harness.suites import run_suite

pytestmark = [pytest.mark.strandline, pytest.mark.timeout(600)]

BUCKET = "contract-bucket"
# Azurite's well-known account.
ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def test_minio(minio):
    env = {
        "STORE_TEST_S3_ENDPOINT": minio.endpoint,
        "STORE_TEST_S3_BUCKET": minio.bucket,
        "AWS_ACCESS_KEY_ID": USER,
        "AWS_SECRET_ACCESS_KEY": PASSWORD,
    }
    run_suite("store::contract::store_contract_s3", "--exact", environment=env, passing=1)


def test_fake_gcs_server(directory):
    port = free_port()
    server = Child(
        [CACHE / "bin/fake-gcs-server", "-scheme", "http", "-host", "127.0.0.1", "-port", port, "-backend", "memory"]
        + ["-public-host", f"127.0.0.1:{port}"],
        log=directory / "gcs.log",
    )
    try:
        url = f"http://127.0.0.1:{port}"
        body = json.dumps({"name": BUCKET}).encode()
        make = lambda: status("POST", f"{url}/storage/v1/b?project=x", body=body) in (200, 409)  # noqa: E731
        wait_until(make, 20, "fake-gcs-server", every_s=0.1)
        env = {"STORE_TEST_GCS_ENDPOINT": url, "STORE_TEST_GCS_BUCKET": BUCKET}
        run_suite("store::object::gcs_emulator::store_contract_gcs", "--exact", environment=env, passing=1)
    finally:
        server.kill9()


def test_azurite(directory):
    port = free_port()
    server = Child(
        ["node", CACHE / "azurite/node_modules/.bin/azurite-blob", "--silent", "--inMemoryPersistence"]
        + ["--skipApiVersionCheck", "--blobHost", "127.0.0.1", "--blobPort", port],
        log=directory / "azurite.log",
        cwd=directory,
    )
    try:
        endpoint = f"http://127.0.0.1:{port}/{ACCOUNT}"
        wait_until(lambda: make_container(endpoint) in (201, 409), 30, "Azurite", every_s=0.2)
        env = {
            "STORE_TEST_AZURE_ENDPOINT": endpoint,
            "STORE_TEST_AZURE_CONTAINER": BUCKET,
            "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": ACCOUNT_KEY,
        }
        run_suite("store::contract::store_contract_azure", "--exact", environment=env, passing=1)
    finally:
        server.kill9()


def make_container(endpoint) -> int:
    """One signed request (Azure's Shared Key)."""
    date, version = email.utils.formatdate(usegmt=True), "2021-08-06"
    to_sign = "PUT" + "\n" * 12 + f"x-ms-date:{date}\nx-ms-version:{version}\n"
    to_sign += f"/{ACCOUNT}/{ACCOUNT}/{BUCKET}\nrestype:container"
    digest = hmac.new(base64.b64decode(ACCOUNT_KEY), to_sign.encode(), hashlib.sha256).digest()
    headers = {
        "x-ms-date": date,
        "x-ms-version": version,
        "Authorization": f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}",
        "Content-Length": "0",
    }
    return status("PUT", f"{endpoint}/{BUCKET}?restype=container", headers)


def status(method, url, headers=None, body=b"") -> int:
    """The answer's status; 0 while nobody answers."""
    request = urllib.request.Request(url, method=method, data=body, headers=headers or {})
    request.add_unredirected_header("Content-Type", "")
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0
