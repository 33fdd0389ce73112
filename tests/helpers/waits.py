"""One of several processes, the first of which decides for a while.

As a program, it takes --coordinator, --processes and --process as main does.
"""

import sys
import time

from rsclip_jax.train import processes

if __name__ == "__main__":
    told = dict(flag.lstrip("-").split("=") for flag in sys.argv[1:])
    number = int(told["process"])
    processes.initialize(told["coordinator"], int(told["processes"]), number)
    processes._ROUND = 0.2
    print(processes.first_waits(lambda: time.sleep(1.5) or "decided"), flush=True)
    try:
        processes.first_waits(lambda: 1 / 0)
    except (ZeroDivisionError, processes.PeerError) as error:
        print(type(error).__name__, error, flush=True)
