"""Evaluate any weights on any datasets.

Purpose   Zero-shot, retrieval, probes, forgetting and the modality gap of one model; or
          the published remote-sensing CLIPs side by side (:rs_clips).
Command   python -m rsclip_jax.main --config=configs/evaluate.py
              --config.init=runs/align_sar --config.data_root=DATA
              --config.datasets="('eurosat_ms:test','sen1floods11:all:64')"
          Probes:
              --config.evaluate.probes="(('resisc45:train','resisc45:val','resisc45:test'),)"
          python -m rsclip_jax.main --config=configs/evaluate.py:rs_clips
              --config.data_root=DATA
              --config.dry_run=True takes random weights of their shapes and a few
              records, to see that all of it runs before the weights (12 GB) are fetched
Hardware  CPU for small models; a GPU for a ViT-B/32 on whole datasets.
Time      One pass over each dataset for each model.
Result    runs/evaluate: results.jsonl, a table and report.html; :rs_clips also has the
          published values beside its own.
"""

from rsclip_jax.configs import common


def get_config(size: str = "any"):
    return common.choose({"any": evaluate, "rs_clips": rs_clips}, size)()


def evaluate():
    config = common.base(stages=("evaluate",))
    # Datasets to measure, as "name:split" or "name:split:tile" (pixels).
    config.datasets = ("miniature:test",)
    config.evaluate = common.evaluate()
    return config


def rs_clips():
    config = common.base(stages=("survey",))
    # Models to compare, each as config.init: name of weights, file, folder, workdir.
    config.models = (
        "OpenAI-ViT-B-32",
        "OpenAI-ViT-B-16",
        "OpenAI-ViT-L-14",
        "OpenAI-ViT-L-14-336",
        "RemoteCLIP-ViT-B-32",
        "RemoteCLIP-ViT-L-14",
        "GeoRSCLIP-ViT-B-32",
        "GeoRSCLIP-ViT-H-14",
        "SkyCLIP-ViT-B-32",
        "SkyCLIP-ViT-L-14",
    )
    # Datasets to measure: all of those without official splits; BigEarthNet's RGB.
    config.datasets = ("eurosat_rgb:all", "resisc45:all", "aid:all", BIGEARTHNET)
    config.evaluate = common.evaluate(gap=False)
    # Published values to show beside: (model, dataset, metric, percent, source).
    config.published = PUBLISHED
    # True: random weights and a few records, to see that all of it runs.
    config.dry_run = False
    # Records of each dataset in a dry run.
    config.dry_records = 64
    return config


BIGEARTHNET = "bigearthnet_s2:test"

# (model, dataset, metric, percent, source). Each source has names, templates and, of
# sets without official splits, images of its own.
# open_clip: docs/openclip_results.csv of github.com/mlfoundations/open_clip
# RS5M: arXiv 2306.11300, table I; GeoRSCLIP by full fine-tuning
# SkyScript: arXiv 2312.12856, table 2; SkyCLIP by top 50 % (B/32) and top 30 % (L/14)
PUBLISHED = (
    ("OpenAI-ViT-B-32", "eurosat_rgb", "accuracy", 50.4, "open_clip"),
    ("OpenAI-ViT-B-32", "eurosat_rgb", "accuracy", 47.21, "RS5M"),
    ("OpenAI-ViT-B-32", "resisc45", "accuracy", 53.6, "open_clip"),
    ("OpenAI-ViT-B-32", "resisc45", "accuracy", 60.9, "RS5M"),
    ("OpenAI-ViT-B-32", "aid", "accuracy", 66.22, "RS5M"),
    ("OpenAI-ViT-B-16", "eurosat_rgb", "accuracy", 55.9, "open_clip"),
    ("OpenAI-ViT-B-16", "resisc45", "accuracy", 58.2, "open_clip"),
    ("OpenAI-ViT-L-14", "eurosat_rgb", "accuracy", 62.6, "open_clip"),
    ("OpenAI-ViT-L-14", "eurosat_rgb", "accuracy", 41.89, "SkyScript"),
    ("OpenAI-ViT-L-14", "resisc45", "accuracy", 63.4, "open_clip"),
    ("OpenAI-ViT-L-14", "resisc45", "accuracy", 66.7, "SkyScript"),
    ("OpenAI-ViT-L-14", "aid", "accuracy", 69.25, "SkyScript"),
    ("OpenAI-ViT-L-14-336", "eurosat_rgb", "accuracy", 61.4, "open_clip"),
    ("OpenAI-ViT-L-14-336", "resisc45", "accuracy", 63.8, "open_clip"),
    ("RemoteCLIP-ViT-B-32", "eurosat_rgb", "accuracy", 30.74, "SkyScript"),
    ("RemoteCLIP-ViT-B-32", "resisc45", "accuracy", 67.88, "SkyScript"),
    ("RemoteCLIP-ViT-B-32", "aid", "accuracy", 87.05, "SkyScript"),
    ("RemoteCLIP-ViT-L-14", "eurosat_rgb", "accuracy", 27.81, "SkyScript"),
    ("RemoteCLIP-ViT-L-14", "resisc45", "accuracy", 74.31, "SkyScript"),
    ("RemoteCLIP-ViT-L-14", "aid", "accuracy", 70.85, "SkyScript"),
    ("GeoRSCLIP-ViT-B-32", "eurosat_rgb", "accuracy", 61.49, "RS5M"),
    ("GeoRSCLIP-ViT-B-32", "resisc45", "accuracy", 71.89, "RS5M"),
    ("GeoRSCLIP-ViT-B-32", "aid", "accuracy", 73.72, "RS5M"),
    ("GeoRSCLIP-ViT-H-14", "eurosat_rgb", "accuracy", 67.47, "RS5M"),
    ("GeoRSCLIP-ViT-H-14", "resisc45", "accuracy", 73.83, "RS5M"),
    ("GeoRSCLIP-ViT-H-14", "aid", "accuracy", 76.33, "RS5M"),
    ("SkyCLIP-ViT-B-32", "eurosat_rgb", "accuracy", 33.3, "SkyScript"),
    ("SkyCLIP-ViT-B-32", "resisc45", "accuracy", 66.67, "SkyScript"),
    ("SkyCLIP-ViT-B-32", "aid", "accuracy", 70.9, "SkyScript"),
    ("SkyCLIP-ViT-L-14", "eurosat_rgb", "accuracy", 52.44, "SkyScript"),
    ("SkyCLIP-ViT-L-14", "resisc45", "accuracy", 70.77, "SkyScript"),
    ("SkyCLIP-ViT-L-14", "aid", "accuracy", 72.15, "SkyScript"),
)
