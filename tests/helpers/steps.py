"""A job that only takes steps, each a collective of all processes, under a watchdog.

python -m tests.helpers.steps --workdir=DIR --sleeper=I --coordinator=HOST:PORT ...
"""

import argparse
import sys
import time
from pathlib import Path

from rsclip_jax.train import processes, watchdog

SECONDS = 6.0  # without progress


def main() -> None:
    """Steps until something happens; process `sleeper` stops at step 5."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workdir", type=Path)
    parser.add_argument("--sleeper", type=int, default=-1)
    parser.add_argument("--coordinator")
    parser.add_argument("--processes", type=int)
    parser.add_argument("--process", type=int)
    told = parser.parse_args()
    processes.initialize(told.coordinator, told.processes, told.process)
    processes.wait_for_all("start")
    watched = watchdog.watching(told.workdir, SECONDS / 60)
    with watched, watchdog.during("steps"):
        for step in range(10_000):
            if step == 5 and processes.index() == told.sleeper:
                time.sleep(600)
            watchdog.beat(step)
            try:
                processes.wait_for_all("step")
            except Exception as error:  # as main does: a peer is lost
                lost = watchdog.describe_peers(told.workdir)
                print(f"error: {lost} {error}", file=sys.stderr)
                processes.leave(1)
            time.sleep(0.05)


if __name__ == "__main__":
    main()
