"""Settings that every config starts from."""

import ml_collections
from ml_collections import config_dict


def base(stages: tuple[str, ...]) -> ml_collections.ConfigDict:
    """The settings that all stages share."""
    config = ml_collections.ConfigDict()
    config.stages = stages
    config.seed = 0
    config.data_root = ""  # where real datasets lie in their public layouts
    # a weight file, a folder that holds one, an earlier workdir, or the name of weights
    config.init = ""
    config.variant = ""  # a row of models/variants.py; "" where config.init tells it
    config.image_size = 0  # > 0: another than the weight file's
    config.activation = ""  # quick_gelu | gelu, where neither of them does
    config.mesh = (-1, 1)  # devices as (data, fsdp); -1 takes what is left
    config.overwrite = False  # True empties a workdir made with another config
    config.progress = True
    config.eval_batch_size = 256
    # what evaluations make of their sets, for the report and for comparisons: 4 bytes x
    # records x sensors x the embedding's width
    config.keep_embeddings = True
    config.data = ml_collections.ConfigDict(
        {
            "threads": 2,
            # or skip: leave unreadable records out, listed in <stage>/skipped.txt
            "on_error": "raise",
            # share of a patch's pixels that may be NaN or nodata, and are then filled
            # with the band's median; 0: NaN is refused, and nodata read as it is
            "max_nodata": 0.0,
        }
    )
    return config


def training(**values) -> ml_collections.ConfigDict:
    """The settings of one training stage; keywords replace the defaults."""
    settings = {
        "batch_size": 128,
        "steps": 100,
        "lr": 1e-4,
        "warmup": 20,
        "weight_decay": 0.01,
        "clip_norm": 1.0,
        "b2": 0.999,
        "checkpoint_every": 100,
        "log_every": 10,
        # (regex on parameter names, trained or not, or what multiplies the rate), first
        # full match wins. In stages patch and align names begin inside the encoder,
        # "blocks_0/attn/..."; of several sensors with the sensor's,
        # "s1/blocks_0/attn/...".
        "trainable": ((".*", True),),
        "layer_decay": 1.0,  # below 1: each block's rate is this times the next one's
        "ema": 0.0,  # > 0, as 0.999: the weights' moving mean is the stage's result
        "augment": {
            "crop_scale": (1.0, 1.0),  # area range of a random resized crop
            "crop_pixels": 0,  # > 0: cut this many pixels square instead
            "flip_lr": True,
            "flip_ud": False,  # for images without an up side
            "rotate": False,  # quarter turns, likewise
            "jitter": 0.0,  # brightness, contrast, saturation of RGB
            "jitter_prob": 0.8,
            "grey_prob": 0.0,
            "blur_prob": 0.0,
            "speckle_looks": 0.0,  # > 0: speckle of that many looks, on SAR in dB
            "sar_gain_db": 0.0,  # SAR in dB: one offset an image, at most this
            "band_dropout": 0.0,  # of each band of a multispectral sensor, to its mean
        },
    }
    augment = {**settings["augment"], **values.pop("augment", {})}
    return ml_collections.ConfigDict({**settings, **values, "augment": augment})


def pretrain(**values) -> ml_collections.ConfigDict:
    """Stage pretrain: datasets as "name:split"."""
    settings = {
        "train": (),
        "test": (),
        "weights": (),  # of the train sets in the mixture; (): by size
    }
    return training(**{**settings, **values})


def pretrain_miniature(**values) -> ml_collections.ConfigDict:
    """Stage pretrain on the embedded world, for a tower of variant "mini"."""
    settings = {
        "train": ("miniature_natural:train", "miniature_aerial:train"),
        "test": ("miniature_natural:test", "miniature:test"),
        "batch_size": 128,
        "steps": 500,
        "lr": 1e-3,
        "warmup": 50,
        "weight_decay": 0.05,
        "b2": 0.98,
    }
    return pretrain(**{**settings, **values})


def patch(**values) -> ml_collections.ConfigDict:
    """Stage patch: the task, the supported sets, and the sweep over alpha.

    Several tasks: train, val and test are tuples of one set each.
    """
    settings = {
        "train": "",
        "val": "",
        "test": "",
        # several tasks: joint (one training on all) | sequential (each from what the
        # one before chose) | parallel (each alone from the original, then merged)
        "tasks": "joint",
        "weights": (),  # of the tasks in joint training; (): by size
        # parallel: mean (alpha / n of each task vector) | sum (alpha of each) | fisher
        "merge": "mean",
        "fisher_examples": 256,  # of each task
        "supported_val": (),
        "supported_test": (),
        "alphas": (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
        # what each supported set may lose, in units of accuracy or mAP; and the least
        # fraction that it must keep
        "max_supported_drop": 0.05,
        "min_supported_retained": 0.0,
        "alpha": config_dict.placeholder(float),  # this one, whatever the sweep says
        "bootstraps": 1000,  # of the validation examples, for the choice's interval
        # what is trained: full (as `trainable` says) | last_blocks | norm | bias | lora
        # | lp_ft (first a linear head, then the tower through it)
        "recipe": "full",
        "last_blocks": 2,  # of recipe last_blocks, the projection with them
        "lora": {
            "rank": 8,
            "alpha": 16.0,  # the product of the factors is scaled by alpha / rank
            "targets": r"(blocks|layer\d)_\d+/.*kernel",  # regex on parameter names
        },
        # text: frozen | trained: with the tower, and mixed like it (WiSE-FT)
        "head": "text",
        "head_steps": 100,  # of recipe lp_ft, before `steps` of the tower
        "head_lr": 1e-3,
        # labels (cross-entropy, or BCE of several labels) | asymmetric (several labels)
        # | flyp (contrastive between images and class prompts)
        "loss": "labels",
        "asymmetric": {"gamma_positive": 0.0, "gamma_negative": 4.0, "margin": 0.05},
        "label_smoothing": 0.0,
        "class_balanced": 0.0,  # beta, as 0.999: rare classes count more
        "per_block": False,  # then look for an alpha for each block
        "block_evaluations": 100,  # models that this may try
        "block_examples": 2000,  # of each validation set, evenly spread; 0: all
        "block_cache_gb": 2.0,  # decoded images kept; what is more is decoded each time
    }
    settings |= values
    for name in ("train", "val", "test"):  # one or several
        settings[name] = config_dict.FieldReference(settings[name], field_type=object)
    return training(**settings)


def align(**values) -> ml_collections.ConfigDict:
    """Stage align: pairs of RGB and a sensor, or several sensors: ("s1", "s2").

    train is then a set or several, not all of which need hold all of them; student and
    normalize are one for all, or pairs, (("s1", "vit"), ("s2", "clip")).
    """
    settings = {
        "train": "",
        "test": (),
        "weights": (),  # of several train sets in the mixture; (): by size
        "sensor": "s1",
        # clip | vit | a pretrained sensor encoder: a file, or a name in ENCODERS
        "student": "clip",
        "pretrained": {  # how that file is read; 0 and "": as it says itself
            "row": "",  # what it was trained on, a name of weights/encoders.py
            "bands": (),  # or the names of its bands, in its order
            "missing": "error",  # bands that only one side has: error | zero | spread
            "image_size": 0,
            "heads": 0,
            "activation": "",
        },
        "vit": {
            "image_size": 64,
            "patch_size": 8,
            "width": 128,
            "layers": 4,
            "heads": 4,
        },
        # (term, weight): mse, cosine, smooth_l1, relational (similarity matrices),
        # info_nce, sigmoid (SigLIP's), labels, soft_labels (the teacher's own zero-shot
        # distribution: no label needed). A weight (first, last) moves over training.
        "losses": (("mse", 1.0), ("labels", 0.05)),
        "temperature": 0.1,  # of info_nce and sigmoid
        # The teacher's features made once, where augment only flips and turns: exact
        # (the views that augment can draw) | d4 (all eight) | off.
        "cache": "off",
        "cache_dir": "",  # where, for other runs too; "": in the workdir
        "classes_of": "",  # soft_labels: "name:split" whose class names are used
        # How a student without a scale of its own sees the sensor: sensor (as its row
        # says) | zscore | percentile, by band, measured on align.train.
        "normalize": "sensor",
        "normalize_records": 500,  # that many records, evenly spread; 0: all
        "normalize_percentiles": (2.0, 98.0),  # these become -1 and 1
    }
    settings |= values
    for name in ("train", "sensor", "student", "normalize"):  # one or several
        settings[name] = config_dict.FieldReference(settings[name], field_type=object)
    return training(**settings)


def evaluate(**values) -> ml_collections.ConfigDict:
    """Stage evaluate: what is measured of config.datasets, and beside them."""
    settings = {
        # named prompt sets (data/prompts.py), each a zero-shot head of its own:
        # dataset (the set's own) | single | satellite | openai80 | openai7 | ...
        "prompts": ("dataset",),
        # probes: (train, val, test) each, such as (("eurosat_rgb:train", "...:val",
        # "...:test"),), of the same classes and without a record in common. A linear
        # probe is fitted on train, its C chosen on val, the number is test's; kNN
        # likewise. Of every sensor that the model encodes.
        "probes": (),
        "knn_k": 20,
        "shots": (1, 2, 4, 8, 16),  # training examples a class; (): no few-shot probes
        "shot_seeds": 3,  # draws of them; the mean is reported
        "gap": True,  # the gap between modalities on each of config.datasets
        # what the model knew before: a weight file, a folder, a name of weights, or a
        # workdir, which stands here for the CLIP that it patched
        "reference": "",
        # sets on which the two are compared: ("cifar10:val", "rsicd:test")
        "forgetting": (),
    }
    return ml_collections.ConfigDict({**settings, **values})


def ablate(**values) -> ml_collections.ConfigDict:
    """Stage ablate: stage align at every combination of some of its settings."""
    # (("align.losses", (..., ...)), ("align.student", ("clip", "vit"))); seed goes, too
    settings = {"sweep": ()}
    return ml_collections.ConfigDict({**settings, **values})


def choose(sizes: dict, name: str):
    """sizes[name]; ValueError listing the names for another."""
    if name not in sizes:
        raise ValueError(
            f"config variant {name!r} is not known; use one of {', '.join(sizes)}"
        )
    return sizes[name]
