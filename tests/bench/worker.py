"""A process under torch's Python that answers a line with a line."""

import os
import subprocess
import sys
from pathlib import Path


class Worker:
    """A script beside this file, run by the Python that RSCLIP_TORCH_PYTHON names.

    Its first line is "ready", or "missing: ..." where something cannot be imported:
    then `missing` says what.
    """

    def __init__(self, script: str, *arguments: str):
        path = Path(__file__).with_name(script)
        python = os.environ.get("RSCLIP_TORCH_PYTHON", sys.executable)
        self.process = subprocess.Popen(
            [python, str(path), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        answer = self.read()
        self.missing = answer.removeprefix("missing: ") if answer != "ready" else ""
        if not answer:
            raise RuntimeError(f"{python} {path} ended early; its error is above")

    def read(self) -> str:
        """The next line it prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, line: str) -> str:
        """Its answer to a line."""
        print(line, file=self.process.stdin, flush=True)
        return self.read()

    def stop(self) -> str:
        """Ends it; what it still prints."""
        answer, _ = self.process.communicate()
        return answer
