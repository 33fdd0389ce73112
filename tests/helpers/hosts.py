"""One of two processes as on two hosts: each works in a folder of its own.

As a program, it takes --coordinator, --processes and --process as main does, and
--folder, which holds the folders 0 and 1. It loads the model "clip", which may lie in
one of them, then checks whether a folder of this name, and one of all, are shared.
"""

import os
import sys
from pathlib import Path

from rsclip_jax.stages import survey
from rsclip_jax.stages.shared import alike
from rsclip_jax.train import processes
from tests.helpers.runs import make_run, tiny_config


def try_folder(folder: str) -> None:
    config = tiny_config()
    config.align.update(cache="exact", cache_dir=folder)
    try:
        alike.check_folders_shared(config, ["align"])
        print(f"{folder} is shared", flush=True)
    except ValueError as error:
        print(error, flush=True)


if __name__ == "__main__":
    told = dict(flag.lstrip("-").split("=") for flag in sys.argv[1:])
    number = int(told["process"])
    processes.initialize(told["coordinator"], int(told["processes"]), number)
    os.chdir(Path(told["folder"]) / str(number))
    alike._WAIT = 0.5
    run = make_run(Path("run"), tiny_config(init="clip", dry_run=False))
    model, why = survey.load(run, "clip")
    print(model is None, why, flush=True)
    try_folder("features")
    try_folder(str(Path(told["folder"]) / "features"))
