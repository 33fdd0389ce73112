"""PEFT's LoRA adapters beside the weights that they adapt (Hu et al. 2021, 2106.09685).

W + scale * B A, where scale is lora_alpha / r, or lora_alpha / sqrt(r) with use_rslora.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from rsclip_jax.io.files import read_object
from rsclip_jax.io.texts import first_of
from rsclip_jax.weights.files import (
    ADAPTER_FILES,
    IN_FOLDER,
    WeightFile,
    open_weights,
)
from rsclip_jax.weights.told.keys import BUILT, FREE, Key, check_section, only

CONFIG, _WEIGHTS = ADAPTER_FILES
_ROOT, _DOWN, _UP = "base_model.model.", ".lora_A.weight", ".lora_B.weight"
# PEFT's LoraConfig; what is not named here is refused where it is set to anything.
KEYS: Mapping[str, Key] = {
    "peft_type": only("LORA"),
    "r": BUILT,
    "lora_alpha": BUILT,
    "use_rslora": BUILT,
    "bias": only("none"),
    "init_lora_weights": only(True, False, "gaussian"),
    **dict.fromkeys(
        (
            *("target_modules", "exclude_modules", "layers_to_transform"),
            *("layers_pattern", "target_parameters"),  # the tensors say which
            *("lora_dropout", "inference_mode", "task_type", "auto_mapping"),
            *("base_model_name_or_path", "revision", "peft_version", "runtime_config"),
            *("ensure_weight_tying", "qalora_group_size"),
            *("megatron_core", "megatron_config"),  # of parallel training
        ),
        FREE,
    ),
}


def adapted(file: WeightFile) -> WeightFile:
    """The file, or with the adapter that lies beside weights of a usual name."""
    folder = file.path.parent
    if file.path.name not in IN_FOLDER or not (folder / CONFIG).is_file():
        return file
    if not (folder / _WEIGHTS).is_file():
        raise FileNotFoundError(
            f"{folder / CONFIG}: the adapter's {_WEIGHTS} is not beside it; add it, or"
            " remove this file to load the model without its adapter"
        )
    adapter = open_weights(folder / _WEIGHTS)
    return with_adapter(file, adapter, read_object(folder / CONFIG))


def with_adapter(file: WeightFile, adapter: WeightFile, config: Mapping) -> WeightFile:
    """The file with the adapter's low-rank products added as its tensors are read.

    Raises ValueError for an adapter of another kind, or of another model.
    """
    path = adapter.path
    told = {k: v for k, v in config.items() if v or k in KEYS}
    check_section(path.parent / CONFIG, "adapter_config", told, KEYS)
    if not config.get("r") or not config.get("lora_alpha"):
        raise ValueError(f"{path.parent / CONFIG}: it does not say r and lora_alpha")
    pairs = _pairs(adapter)
    if lost := sorted(f"{name}.weight" for name in pairs if _lacks(file, name)):
        raise ValueError(
            f"{path}: it adapts {len(lost)} tensor(s) that {file.path} does not have as"
            f" matrices: {first_of(lost)}; is it another model's?"
        )
    rank = config["r"] ** 0.5 if config.get("use_rslora") else config["r"]
    scale = np.float32(config["lora_alpha"] / rank)

    def read(name: str) -> np.ndarray:
        base, module = file.read(name), name.removesuffix(".weight")
        if module == name or module not in pairs:
            return base
        down, up = (adapter.read(n).astype(np.float32) for n in pairs[module])
        return base.astype(np.float32) + scale * (up @ down)

    return dataclasses.replace(file, read=read)


def _lacks(file: WeightFile, module: str) -> bool:
    return len(file.shapes.get(f"{module}.weight", ())) != 2


def _pairs(adapter: WeightFile) -> dict[str, tuple[str, str]]:
    """{module: names of its A and B}; ValueError for other tensors."""
    names = {name.removeprefix(_ROOT): name for name in adapter.shapes}
    pairs: dict[str, Any] = {}
    for name in names:
        module = name.removesuffix(_DOWN).removesuffix(_UP)
        downs = f"{module}{_DOWN}", f"{module}{_UP}"
        if module == name or not set(downs) <= names.keys():
            raise ValueError(
                f"{adapter.path}: {name} is no half of a LoRA pair; merge the adapter"
                " with PEFT's merge_and_unload() and save the model"
            )
        pairs[module] = tuple(names[n] for n in downs)
    return pairs
