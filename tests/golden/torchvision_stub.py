"""Stand-ins that let open_clip and timm import where torchvision has no build.

Both import its image transforms and data sets at the top of their modules; the models
use none of them.
"""

import enum
import importlib.machinery
import importlib.util
import sys
import types

MODULES = (
    "torchvision",
    "torchvision.datasets",
    "torchvision.ops",
    "torchvision.ops.misc",
    "torchvision.transforms",
    "torchvision.transforms.functional",
)
# timm and open_clip look these up by value, so they are true members.
InterpolationMode = enum.Enum(
    "InterpolationMode",
    {m.upper(): m for m in ("nearest", "bilinear", "bicubic", "box", "hamming")}
    | {"NEAREST_EXACT": "nearest-exact", "LANCZOS": "lanczos"},
)


class _Stub(types.ModuleType):
    """A module that answers any public name with an empty class."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def install() -> None:
    """Puts the stand-ins in sys.modules, unless torchvision is installed."""
    if "torchvision" in sys.modules or importlib.util.find_spec("torchvision"):
        return
    for name in MODULES:
        module = _Stub(name)
        # find_spec, by which transformers looks for torchvision, wants a spec.
        module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
        sys.modules[name] = module
        if parent := name.rpartition(".")[0]:
            setattr(sys.modules[parent], name.rpartition(".")[2], module)
    for name in ("torchvision.transforms", "torchvision.transforms.functional"):
        sys.modules[name].InterpolationMode = InterpolationMode
