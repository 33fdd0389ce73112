"""A Google Cloud Storage of this machine: the emulator of PyPI, in a subprocess."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

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
    port = _free_port()
    tool = Path(sys.executable).with_name("gcp-storage-emulator")
    command = [tool, "start", "--host=127.0.0.1", f"--port={port}", "--in-memory"]
    command.append(f"--default-bucket={BUCKET}")
    with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=out) as p:
        try:
            _wait(port, p)
            url = f"http://127.0.0.1:{port}"
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
    for _ in range(200):
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
