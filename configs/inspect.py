"""Inspect a dataset before anything is trained on it.

Purpose   Count records and classes, measure bands, and show pictures.
Command   python -m rsclip_jax.main --config=configs/inspect.py
              --config.dataset=eurosat_rgb --config.data_root=DATA
Hardware  CPU.
Time      Seconds to minutes: 200 records of each split are read.
Result    A table; summary.json and contact_sheet.png in
          runs/inspect/inspect/eurosat_rgb.
"""

from rsclip_jax.configs import common


def get_config():
    config = common.base(stages=("inspect",))
    # Dataset to inspect: a name in the table of datasets, or a TOML file.
    config.dataset = "miniature"
    config.inspect = common.inspect()
    return config
