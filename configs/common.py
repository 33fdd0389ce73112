"""The settings of every stage with their defaults: configs start from these.

The comment above a setting says what it means, its unit and the values it takes;
configs/README.md is generated from these comments.
"""

import ml_collections
from ml_collections import config_dict


def base(stages: tuple[str, ...]) -> ml_collections.ConfigDict:
    """The settings that all stages share."""
    config = ml_collections.ConfigDict()
    # Stages to run, in order; a stage whose product is in the workdir is skipped.
    config.stages = stages
    # Integer that seeds initial weights, the order of the data and augmentation.
    config.seed = 0
    # Folder that holds the real datasets in their public layouts, or packed.
    config.data_root = ""
    # CLIP to start from: weight file, its folder, earlier workdir, or name of weights.
    config.init = ""
    # Architecture, a name in models/variants.py; "": as config.init says.
    config.variant = ""
    # Side in pixels of the CLIP's input; 0: as the weight file says.
    config.image_size = 0
    # quick_gelu | gelu, for a weight file that does not say it; "": it does.
    config.activation = ""
    # Attention heads of the visual and the text tower, likewise; (): it says them.
    config.heads = ()
    # Bands that its visual tower takes, sensor or TOML file; "": RGB, or it says them.
    config.init_sensor = ""
    # Matrix products: float32 | bfloat16; "": bfloat16 on TPU and GPU, else float32.
    config.precision = ""
    # What the backward pass computes again to save memory: none | dots | block.
    config.remat = "none"
    # Loop over a transformer's layers: compiles faster; slower on CPU.
    config.scan_layers = False
    # Attention: auto | xla | cudnn (bfloat16 on an NVIDIA GPU).
    config.attention = "auto"
    # Devices along the axes (data, fsdp); -1 takes all that are left.
    config.mesh = (-1, 1)
    # True: empty a workdir that was made with another config, and start again.
    config.overwrite = False
    # Minutes without progress after which a job of several processes ends; 0: never.
    config.watchdog_minutes = 30.0
    # Folder of compiled programs, for faster starts: auto (of the user) | "": none.
    config.compile_cache = "auto"
    # Show progress bars.
    config.progress = True
    # True: print memory, speed, disk and time of each stage, and write nothing.
    config.plan = False
    # Memory of a device in GiB for which a plan finds the largest batch; 0: its own.
    config.plan_memory_gb = 0.0
    # False: plan only for plan_topologies, not for the devices at hand.
    config.plan_here = True
    # TPU topologies that a plan compiles for, where libtpu is installed.
    config.plan_topologies = ("v5e:2x2", "v6e:2x2")
    # Examples in a batch of evaluation; a multiple of the number of devices.
    config.eval_batch_size = 256
    # Keep embeddings for the report: 4 bytes x records x sensors x embedding width.
    config.keep_embeddings = True
    config.data = ml_collections.ConfigDict(
        {
            # Your dataset, TOML file or name, in configs/patch.py and configs/align.py.
            "dataset": "",
            # Threads that read and decode images.
            "threads": 2,
            # Unreadable records: raise | skip (listed in <stage>/skipped.txt).
            "on_error": "raise",
            # Share of a patch that may be NaN or nodata, filled by the band's median.
            "max_nodata": 0.0,
            # Most pixels that an image may say it has; one of more is unreadable.
            "max_pixels": 2**28,
        }
    )
    return config


def training(**values) -> ml_collections.ConfigDict:
    """The settings of one training stage; keywords replace the defaults."""
    settings = {
        # Examples in a batch; a multiple of the number of devices.
        "batch_size": 128,
        # Training steps.
        "steps": 100,
        # Peak learning rate of AdamW.
        "lr": 1e-4,
        # Steps of linear warm-up; cosine decay to 0 follows.
        "warmup": 20,
        # AdamW's weight decay, on matrices only.
        "weight_decay": 0.01,
        # Largest global norm of the gradient; larger gradients are scaled down to it.
        "clip_norm": 1.0,
        # AdamW's second-moment decay, in [0, 1).
        "b2": 0.999,
        # Steps between checkpoints.
        "checkpoint_every": 100,
        # Steps between lines of metrics.jsonl.
        "log_every": 10,
        # Number of newest checkpoints that are kept.
        "keep": 2,
        # Number of checkpoints with the lowest mean loss that are kept beside them.
        "keep_best": 1,
        # At a loss or gradient that is not finite: stop | skip (the step, uncounted).
        "on_nonfinite": "stop",
        # Most steps of a training that on_nonfinite "skip" leaves out.
        "max_skipped": 10,
        # True: training, validation and test datasets may share records.
        "allow_shared": False,
        # True: validation and test may be of other datasets than training.
        "allow_other_data": False,
        # (regex on a parameter's name, True | False | rate factor); first match wins.
        "trainable": ((".*", True),),
        # Each block's rate is this times the next block's, in (0, 1]; 1: all alike.
        "layer_decay": 1.0,
        # Parts in which a batch passes through the model, to save memory; 1: at once.
        "accumulate": 1,
        # Gradients that devices exchange: float32 | bfloat16 (half as much).
        "grad_dtype": "float32",
        # How devices compare a whole batch: all_gather | ring (least memory).
        "negatives": "all_gather",
        # Decay of the weights' moving average, such as 0.999; 0: no average.
        "ema": 0.0,
        "augment": {
            # (least, most) share of the area that a random resized crop keeps.
            "crop_scale": (1.0, 1.0),
            # Side in pixels of a random square crop that is not resized; 0: off.
            "crop_pixels": 0,
            # Flip left-right, at random.
            "flip_lr": True,
            # Flip up-down, at random: for images without an up side.
            "flip_ud": False,
            # Rotate by quarter turns, at random: for images without an up side.
            "rotate": False,
            # Largest change of RGB's brightness, contrast and saturation, in [0, 1].
            "jitter": 0.0,
            # Probability of the colour jitter, in [0, 1].
            "jitter_prob": 0.8,
            # Probability that RGB becomes grey, in [0, 1].
            "grey_prob": 0.0,
            # Probability that RGB is blurred, in [0, 1].
            "blur_prob": 0.0,
            # Looks of multiplicative speckle on SAR in dB, at least 1; 0: off.
            "speckle_looks": 0.0,
            # Largest offset in dB, one an image, added to SAR in dB; 0: off.
            "sar_gain_db": 0.0,
            # Probability that a multispectral band is set to its mean, in [0, 1).
            "band_dropout": 0.0,
        },
    }
    augment = {**settings["augment"], **values.pop("augment", {})}
    return ml_collections.ConfigDict({**settings, **values, "augment": augment})


def pretrain(**values) -> ml_collections.ConfigDict:
    """Stage pretrain: contrastive training of a CLIP from scratch."""
    settings = {
        # Training datasets as "name:split", captioned or with one label an image.
        "train": (),
        # Datasets as "name:split" that are measured before and after; () for none.
        "test": (),
        # Share of each training dataset in a batch, above 0; (): by size.
        "weights": (),
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
    """Stage patch: fine-tune the visual tower, interpolate, choose alpha."""
    settings = {
        # Dataset "name:split" to fine-tune on; a tuple of them for several tasks.
        "train": "",
        # Dataset on which alpha is chosen; a tuple of one for each task.
        "val": "",
        # Dataset on which the result is reported; a tuple of one for each task.
        "test": "",
        # Several tasks: joint (one training) | sequential | parallel (then merged).
        "tasks": "joint",
        # Share of each task in a batch of joint training, above 0; (): by size.
        "weights": (),
        # Merge of parallel tasks: mean (alpha / n each) | sum (alpha each) | fisher.
        "merge": "mean",
        # Examples of each task that merge "fisher" reads.
        "fisher_examples": 256,
        # Supported datasets as "name:split" that limit alpha by what they lose.
        "supported_val": (),
        # Supported datasets as "name:split" on which the loss is reported.
        "supported_test": (),
        # True: a supported dataset on which the CLIP is at chance does not limit alpha.
        "supported_above_chance": False,
        # Alphas to try, in [0, 1]; 0 (original) and 1 (fine-tuned) among them.
        "alphas": (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
        # Most that a supported dataset may lose, in accuracy or mAP, in [0, 1].
        "max_supported_drop": 0.05,
        # Least share of its value that a supported dataset must keep, in [0, 1].
        "min_supported_retained": 0.0,
        # Take this alpha, in [0, 1], whatever validation says; None: choose it.
        "alpha": config_dict.placeholder(float),
        # Bootstrap samples of the validation data, for the interval of the choice.
        "bootstraps": 1000,
        # What is trained: full | last_blocks | norm | bias | lora | lp_ft.
        "recipe": "full",
        # Blocks that recipe last_blocks trains, the projection with them.
        "last_blocks": 2,
        "lora": {
            # Rank of the adapters.
            "rank": 8,
            # The adapters' product is scaled by alpha / rank.
            "alpha": 16.0,
            # Regex on the names of the kernels that get an adapter.
            "targets": r"(blocks|layer\d)_\d+/.*kernel",
        },
        # Zero-shot head: text (frozen) | trained (with the tower, and interpolated).
        "head": "text",
        # Steps of the linear head that recipe lp_ft trains first.
        "head_steps": 100,
        # Peak learning rate of that head.
        "head_lr": 1e-3,
        # labels (cross-entropy, or BCE) | asymmetric (several labels) | flyp | sigmoid.
        "loss": "labels",
        # Loss flyp: train the text tower too, and interpolate it with the image tower.
        "train_text": False,
        "asymmetric": {
            # Exponent by which easy positives count less, at least 0.
            "gamma_positive": 0.0,
            # Exponent by which easy negatives count less, at least 0.
            "gamma_negative": 4.0,
            # Probability below which a negative does not count, in [0, 1).
            "margin": 0.05,
        },
        # Share of a label's mass spread over all classes, in [0, 1).
        "label_smoothing": 0.0,
        # Beta of class-balanced weights, in [0, 1), such as 0.999; 0: all alike.
        "class_balanced": 0.0,
        # True: then search an alpha for each block, starting from the single one.
        "per_block": False,
        # Models that this search may evaluate.
        "block_evaluations": 100,
        # Examples of each validation dataset that it reads, evenly spread; 0: all.
        "block_examples": 2000,
        # Decoded images kept in memory, in GB; the rest is decoded each time.
        "block_cache_gb": 2.0,
    }
    settings |= values
    for name in ("train", "val", "test"):  # one or several
        settings[name] = config_dict.FieldReference(settings[name], field_type=object)
    return training(**settings)


def align(**values) -> ml_collections.ConfigDict:
    """Stage align: train sensor encoders onto the CLIP's features of paired RGB."""
    settings = {
        # Dataset "name:split" of RGB paired with a sensor; a tuple for several.
        "train": "",
        # Datasets as "name:split" that are measured before and after.
        "test": (),
        # Share of each training dataset in a batch, above 0; (): by size.
        "weights": (),
        # Sensor to align, such as "s1"; a tuple for several, ("s1", "s2").
        "sensor": "s1",
        # clip | vit | weight file | name in ENCODERS; or ((sensor, student), ...).
        "student": "clip",
        "pretrained": {
            # What a student's weight file was trained on; "": as the file says.
            "row": "",
            # Or the names of the bands of that file, in its order; (): as it says.
            "bands": (),
            # Bands that only one side has: error | zero | spread.
            "missing": "error",
            # Side in pixels of its input; 0: as the file says.
            "image_size": 0,
            # Its attention heads; 0: as the file says.
            "heads": 0,
            # Its activation, quick_gelu | gelu; "": as the file says.
            "activation": "",
        },
        "vit": {
            # Side in pixels of the input of student "vit".
            "image_size": 64,
            # Side of a patch in pixels.
            "patch_size": 8,
            # Channels of a token.
            "width": 128,
            # Blocks.
            "layers": 4,
            # Attention heads of a block.
            "heads": 4,
        },
        # (term, weight or (first, last)): mse, cosine, ... see train/objectives.py.
        "losses": (("mse", 1.0), ("labels", 0.05)),
        # Temperature of the terms info_nce and sigmoid, above 0.
        "temperature": 0.1,
        # Teacher features made once: off | exact (views augment draws) | d4 (all 8).
        "cache": "off",
        # Folder for these features, which other runs can share; "": in the workdir.
        "cache_dir": "",
        # Dataset "name:split" that gives soft_labels its class names; "": train's.
        "classes_of": "",
        # Scale of the input: sensor | zscore | percentile; or ((sensor, scale), ...).
        "normalize": "sensor",
        # Training records from which a scale is measured, evenly spread; 0: all.
        "normalize_records": 500,
        # (low, high) percentiles that "percentile" maps to -1 and 1.
        "normalize_percentiles": (2.0, 98.0),
    }
    settings |= values
    for name in ("train", "sensor", "student", "normalize"):  # one or several
        settings[name] = config_dict.FieldReference(settings[name], field_type=object)
    return training(**settings)


def evaluate(**values) -> ml_collections.ConfigDict:
    """Stage evaluate: what is measured on config.datasets, and beside them."""
    settings = {
        # Prompt sets, a zero-shot head each: dataset | single | satellite | openai80...
        "prompts": ("dataset",),
        # Probes, (train, val, test) of "name:split" each: linear, kNN and few-shot.
        "probes": (),
        # Neighbours of the kNN probe.
        "knn_k": 20,
        # Training examples a class of the few-shot probes; (): none.
        "shots": (1, 2, 4, 8, 16),
        # Draws of the few-shot examples; their mean is reported.
        "shot_seeds": 3,
        # Measure the gap between modalities on each dataset.
        "gap": True,
        # The model before training: weight file, folder, name, or patched workdir.
        "reference": "",
        # Datasets as "name:split" on which the model is compared with the reference.
        "forgetting": (),
    }
    return ml_collections.ConfigDict({**settings, **values})


def ablate(**values) -> ml_collections.ConfigDict:
    """Stage ablate: stage align at every combination of some of its settings."""
    # ((setting, (value, ...)), ...), of stage align ("align.losses") or "seed".
    settings = {"sweep": ()}
    return ml_collections.ConfigDict({**settings, **values})


def export(**values) -> ml_collections.ConfigDict:
    """Stage export: write the model for other tools."""
    settings = {
        # Names of the parameters in the file: open_clip | openai | hf.
        "layout": "open_clip",
        # Type of the numbers in the file: float32 | float16 | bfloat16.
        "dtype": "float32",
        # Programs that run without this package, besides: stablehlo, onnx.
        "programs": (),
        # Sensors whose encoder is also written as one CLIP with the text tower.
        "with_text": (),
        # Another alpha than the chosen one, in [0, 1]; sensor encoders are left out.
        "alpha": config_dict.placeholder(float),
    }
    return ml_collections.ConfigDict({**settings, **values})


def map(**values) -> ml_collections.ConfigDict:
    """Stage map: the classes of a scene's ground, by words."""
    settings = {
        # Templates of the class names, {c} stands for the name.
        "templates": ("a satellite photo of {c}.",),
        # Sentences, a map of cosine similarity for each.
        "sentences": (),
        # Side of a tile in pixels; 0: as large as the encoder's training images.
        "tile": 0,
        # Pixels between tiles, a divisor of tile: that of the map's cells; 0: tile.
        "stride": 0,
        # Share of a tile's pixels that must have values; the rest gets the median.
        "min_valid": 0.5,
        # True: pixels that Sentinel-2's scene classification calls cloud have none.
        "clear": False,
        # CRS of the map, such as EPSG:32632; "": the scene's.
        "crs": "",
        # Side of a pixel in units of that CRS; 0: the scene's.
        "resolution": 0.0,
        # Unit of radar that does not say it: dB | power | amplitude.
        "unit": "",
        # Smallest area in areas.geojson, in m2 (squares of the CRS's unit).
        "min_area": 0.0,
    }
    return ml_collections.ConfigDict({**settings, **values})


def inspect(**values) -> ml_collections.ConfigDict:
    """Stage inspect: count, measure and show what a dataset holds."""
    # Records read from each split, evenly spread; 0: all.
    settings = {"samples": 200}
    return ml_collections.ConfigDict({**settings, **values})


def pack(**values) -> ml_collections.ConfigDict:
    """Stage pack: copy a dataset into a few large files."""
    settings = {
        # Folder in which <dataset>/<split>/ is made.
        "out": "",
        # Splits to pack.
        "splits": ("train", "val", "test"),
        # Processes that read and compress.
        "workers": 2,
        # Size of a file before compression, in million bytes.
        "shard_mb": 256.0,
        # none | zstd | auto (zstd where images are 8-bit).
        "compression": "auto",
    }
    return ml_collections.ConfigDict({**settings, **values})


def choose(sizes: dict, name: str):
    """sizes[name]; ValueError listing the names for another."""
    if name not in sizes:
        raise ValueError(
            f"config variant {name!r} is not known; use one of {', '.join(sizes)}"
        )
    return sizes[name]
