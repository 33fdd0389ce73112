"""A job of several processes that saves; then one of them gets SIGTERM.

As a program, it takes --workdir, and --coordinator, --processes and --process as main.
"""

import os
import signal
import sys
import time
from pathlib import Path

import jax
import numpy as np
import optax

from rsclip_jax.train import processes, sharding, stopping
from rsclip_jax.train.resume import Saves

STEP, POINTS = 1000, 20  # of the save; before it, as of a training that was resumed

if __name__ == "__main__":
    told = dict(flag.lstrip("-").split("=") for flag in sys.argv[1:])
    number = int(told["process"])
    processes.initialize(told["coordinator"], int(told["processes"]), number)
    params = {"w": np.zeros(4, np.float32)}
    state = sharding.make_placed_state(params, optax.sgd(0.1), sharding.make_mesh())
    step = jax.device_put(np.int32(STEP), state.step.sharding)
    with stopping.after_step() as stop, Saves(Path(told["workdir"])) as saves:
        for _ in range(POINTS):
            assert not stop.reached()
        saves.save(state.replace(step=step), {}, {"sources": {}})
        saves.wait()
        processes.wait_for_all("saved")
        if number == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)  # until all have heard of it, also on a busy machine
        found = [point for point in range(1, 6) if stop.reached()]
    print(f"stopped at points {found} after the save", flush=True)
    processes.leave(0)
