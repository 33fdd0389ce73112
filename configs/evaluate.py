"""Evaluate any weights on any datasets: set config.init, config.datasets, data_root.

--config=configs/evaluate.py --config.init=runs/align_sar
    --config.datasets="('eurosat_rgb:val','sentinel_pairs:val:64')"
"""

from configs import common


def get_config():
    config = common.base(stages=("evaluate",))
    config.datasets = ("miniature:test",)
    return config
