"""Evaluate any weights on any datasets: set config.init, config.datasets, data_root.

--config=configs/evaluate.py --config.init=runs/align_sar
    --config.datasets="('eurosat_ms:test','sen1floods11:all:64')"
    --config.data_root=DATA
Probes: --config.evaluate.probes="(('resisc45:train','resisc45:val','resisc45:test'),)"
"""

from configs import common


def get_config():
    config = common.base(stages=("evaluate",))
    config.evaluate = common.evaluate()
    config.datasets = ("miniature:test",)
    config.evaluate = common.evaluate()
    return config
