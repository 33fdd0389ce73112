"""rsclip_jax: remote-sensing sensors in CLIP, by robust patching and alignment."""

from typing import TYPE_CHECKING, Any

from rsclip_jax.version import __version__

if TYPE_CHECKING:
    from rsclip_jax.api import Model, load

__all__ = ["Model", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """`load` and `Model` on first use: importing the package loads nothing heavy."""
    if name in ("load", "Model"):
        from rsclip_jax import api

        return getattr(api, name)
    raise AttributeError(f"module 'rsclip_jax' has no attribute {name!r}")
