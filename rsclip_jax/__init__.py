"""rsclip_jax: remote-sensing sensors in CLIP, by robust patching and alignment."""

from typing import TYPE_CHECKING, Any

from rsclip_jax.version import __version__

if TYPE_CHECKING:
    from rsclip_jax import (
        data,
        interpolate,
        losses,
        metrics,
        models,
        train_step,
        weights,
    )
    from rsclip_jax.api import Model, load
    from rsclip_jax.data.scenes.opening import open_scene

__all__ = [
    "Model",
    "__version__",
    "data",
    "interpolate",
    "load",
    "losses",
    "metrics",
    "models",
    "open_scene",
    "train_step",
    "weights",
]


def __getattr__(name: str) -> Any:
    """Imports a public name at its first use, so importing the package stays light."""
    match name:
        case "load" | "Model":
            from rsclip_jax import api

            return getattr(api, name)
        case "open_scene":
            from rsclip_jax.data.scenes.opening import open_scene

            return open_scene
        # importing a submodule puts it among the globals
        case "losses":
            import rsclip_jax.losses
        case "interpolate":
            import rsclip_jax.interpolate
        case "metrics":
            import rsclip_jax.metrics
        case "train_step":
            import rsclip_jax.train_step
        case "weights":
            import rsclip_jax.weights
        case "data":
            import rsclip_jax.data.datasets
            import rsclip_jax.data.sensors
            import rsclip_jax.data.tokenizer
        case "models":
            import rsclip_jax.models.clip  # noqa: F401
        case _:
            raise AttributeError(f"module 'rsclip_jax' has no attribute {name!r}")
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
