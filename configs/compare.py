"""Compare finished runs: what differs between their results, and how surely.

Purpose   Paired tests of each run against the first, the baseline. The same examples
          are drawn for both, so a small difference can be told from chance.
Command   python -m rsclip_jax.main --config=configs/compare.py
              --config.runs="('runs/a','runs/b')"
          One combination of an ablation is a run, too:
          'runs/ablate/ablate/losses=mse,student=vit'.
Hardware  CPU.
Time      Seconds to minutes.
Result    A table; comparison.jsonl and compare.html in runs/compare/compare.
"""

from rsclip_jax.configs import common


def get_config():
    config = common.base(stages=("compare",))
    # Two or more workdirs whose stages are done; the first is the baseline.
    config.runs = ()
    return config
