"""Pack a dataset: its small files into a few large ones, which are read many times
faster. Set config.dataset, config.data_root and config.pack.out.

--config=configs/pack.py --config.dataset=eurosat_rgb --config.data_root=DATA
    --config.pack.out=PACKED
    PACKED/eurosat_rgb/<split>/part-*.array_record and their manifest.json; from then
    on --config.data_root=PACKED reads them. The same command goes on after a kill.
"""

from rsclip_jax.configs import common


def get_config():
    config = common.base(stages=("pack",))
    # Dataset to pack: a name in the table of datasets, or a TOML file.
    config.dataset = ""
    config.pack = common.pack()
    return config
