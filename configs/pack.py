"""Pack a dataset: its small files into a few large ones, which are read many times
faster. Set config.dataset, config.data_root and config.pack.out.

--config=configs/pack.py --config.dataset=eurosat_rgb --config.data_root=DATA
    --config.pack.out=PACKED
    PACKED/eurosat_rgb/<split>/part-*.array_record and their manifest.json; from then
    on --config.data_root=PACKED reads them. The same command goes on after a kill.
"""

import ml_collections

from configs import common


def get_config():
    config = common.base(stages=("pack",))
    config.dataset = ""  # a name of the table in README.md, or a TOML file
    config.pack = ml_collections.ConfigDict(
        {
            "out": "",  # the folder that <dataset>/<split>/ is made in
            "splits": ("train", "val", "test"),
            "workers": 2,  # processes
            "shard_mb": 256.0,  # million bytes in a file, before compression
            "compression": "auto",  # none | zstd; auto: zstd where images are 8-bit
        }
    )
    return config
