"""Stand-ins for command-line tools, in a folder that is all of a script's PATH."""

import os
import shutil
import subprocess
from pathlib import Path

from tests.conftest import REPO

# what the scripts of launch/ may call beside the tool that they are about
_ALLOWED = """
    bash cat date dirname env git grep gzip head mkdir mktemp mv nohup rm sed sh sleep
    tail tar touch tr
""".split()
_WORD, _CALL = "\x1f", "\x1e"
# One write a call, since stand-ins may run at the same time.
_HEAD = f"""#!/bin/sh
call=${{0##*/}}
for word; do call="$call{_WORD}$word"; done
printf '%s{_CALL}' "$call" >> "$STUBS/calls"
"""


class Stubs:
    """A PATH of stand-ins that write down how they are called."""

    def __init__(self, folder: Path):
        self.folder = folder / "stubs"
        self.folder.mkdir()
        for name in _ALLOWED:
            if found := shutil.which(name):
                (self.folder / name).symlink_to(found)

    def add(self, name: str, body: str = "") -> None:
        """A tool that records its words and then runs body, a piece of sh."""
        path = self.folder / name
        path.write_text(_HEAD + body)
        path.chmod(0o755)

    def calls(self) -> list[list[str]]:
        """Each call of a stand-in, in order: its name and its words."""
        path = self.folder / "calls"
        text = path.read_text() if path.exists() else ""
        return [call.split(_WORD) for call in text.split(_CALL)[:-1]]

    def environment(self, **variables: str) -> dict[str, str]:
        kept = {k: os.environ[k] for k in ("HOME", "TMPDIR") if k in os.environ}
        return {
            **kept,
            "PATH": str(self.folder),
            "STUBS": str(self.folder),
            "PYTHON": "python3",
            **variables,
        }

    def run(self, script: str, *words: str, cwd=None, **variables: str):
        """Runs a script of launch/ to its end."""
        return subprocess.run(
            ["bash", REPO / "launch" / script, *words],
            cwd=cwd or self.folder.parent,
            env=self.environment(**variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
