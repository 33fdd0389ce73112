"""What the name of timm's architecture tells and no tensor shows.

timm_towers.json is made from timm's registry by tests/golden/timm_table.py. It has the
plain ViTs (heads, activation, LayerNorm's eps, pooling) and the plain bottleneck
ResNets; any other architecture has parts that the encoders here lack.
"""

import functools
import importlib.resources
import json
from pathlib import Path
from typing import Any

FILE = "timm_towers.json"


@functools.cache
def towers() -> dict[str, Any]:
    """timm's version and its towers by name.

    "vit": {name: [heads, activation, eps, pool]}; "siglip": {name: [heads, activation,
    eps]}, pooled by an attention head; "resnet": names.
    """
    text = importlib.resources.files("rsclip_jax.weights").joinpath(FILE).read_text()
    return json.loads(text)


def read_architecture(path: Path, name: str, is_resnet: bool) -> dict[str, Any]:
    """The fields of SensorSpec, and "pool" in timm's word, that the name tells.

    A tag behind a dot, such as ".augreg_in21k", names weights and is left out. Raises
    ValueError for an architecture that is not in the table.
    """
    plain, known = name.partition(".")[0], towers()
    if is_resnet and plain in known["resnet"]:
        return {}
    if not is_resnet and plain in known["vit"]:
        heads, activation, eps, pool = known["vit"][plain]
        return {"heads": heads, "activation": activation, "eps": eps, "pool": pool}
    kind = "bottleneck ResNets" if is_resnet else "ViTs"
    raise ValueError(
        f"{path}: architecture = {name!r} is none of the plain {kind} of timm"
        f" {known['timm']}, so it has parts that are not built here"
    )


def read_siglip(path: Path, name: str) -> dict[str, Any]:
    """The heads, activation and eps of a SigLIP's image tower by timm's name for it.

    Raises ValueError for a name that is not in the table.
    """
    found = towers()["siglip"].get(name.partition(".")[0])
    if found is None:
        raise ValueError(
            f"{path}: vision_cfg.timm_model_name = {name!r} is none of the SigLIPs of"
            f" timm {towers()['timm']}"
        )
    return dict(zip(("heads", "activation", "eps"), found, strict=True))
