#!/usr/bin/env bash
# orbax-checkpoint 0.12.8 with jax 0.10.2, two processes: CheckpointManager.save moves JAX's
# preemption sync point, and a preemption notice is then missed by a loop of one's own.
#
# multihost_utils.reached_preemption_sync_point(n) lets all processes of a job agree on
# the n at which they stop. JAX takes the largest n that any process has reported, plus
# one. CheckpointManager.save(step) calls it too, with its own step. A loop that counts in
# another unit (batches of an evaluation, steps of this stage) then has a notice that
# comes after the save aimed at step + 1, and stops there: after thousands of its own
# points, or never. Without the save both processes stop at the next point.
#
# Seen: without a save both stop at point 51; after save(1000) neither stops at 51 to 80.
# Exits 0 while that holds, 1 otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet \
    jax==0.10.2 orbax-checkpoint==0.12.8 tensorstore==0.1.86 numpy==2.4.6
cat > "$folder/job.py" <<'PYTHON'
import os
import pathlib
import signal
import sys
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

index, port, folder = int(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3])
jax.distributed.initialize(f"127.0.0.1:{port}", 2, index)
multihost_utils.sync_global_devices("begin")
points = iter(range(1, 81))
for _ in range(50):
    multihost_utils.reached_preemption_sync_point(next(points))
if sys.argv[4] == "save":
    options = ocp.CheckpointManagerOptions(enable_async_checkpointing=False)
    with ocp.CheckpointManager(folder, options=options) as manager:
        manager.save(1000, args=ocp.args.StandardSave({"w": np.ones(4, np.float32)}))
multihost_utils.sync_global_devices("saved")
if index == 1:
    os.kill(os.getpid(), signal.SIGTERM)
time.sleep(4)  # the notice reaches both
stopped = "none"
for point in points:
    if multihost_utils.reached_preemption_sync_point(point):
        stopped = point
        break
    time.sleep(0.1)
(folder / f"{sys.argv[4]}{index}").write_text(str(stopped))
os._exit(0)  # a usual exit would wait for the other process
PYTHON
run() { # what the two processes do between the points: nothing, or a save
    local port
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    for index in 0 1; do
        JAX_PLATFORMS=cpu timeout 120 "$folder/venv/bin/python" "$folder/job.py" \
            "$index" "$port" "$folder/run" "$1" 2> "$folder/log$index" &
    done
    wait
    echo "$1: stopped at point $(cat "$folder/run/${1}0") and $(cat "$folder/run/${1}1")"
}
mkdir "$folder/run"
run nothing
run save
[ "$(cat "$folder"/run/nothing?)" = "5151" ] && [ "$(cat "$folder"/run/save?)" = "nonenone" ]
