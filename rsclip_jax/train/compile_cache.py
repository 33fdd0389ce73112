"""Where compiled programs are kept between runs, and how much of them."""

import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

AUTO = "auto"
# JAX's own variable: a folder that it names is left to JAX, with JAX's bounds.
VARIABLE = "JAX_COMPILATION_CACHE_DIR"
_DIR = VARIABLE.lower()
# A step of ViT-L/14 takes 5 to 30 MB; JAX removes what was not used for longest.
MAX_BYTES = 2 * 2**30
# Programs that compile faster are not worth a file.
MIN_SECONDS = 0.1
# An entry without a time of use is being written for at most so long.
_WRITING_SECONDS = 600.0


def cache_options(
    setting: str, environ: Mapping[str, str] = os.environ
) -> dict[str, Any]:
    """JAX's options for a folder of compiled programs: "auto", "" (none), or a folder.

    "auto" is the folder that JAX_COMPILATION_CACHE_DIR names, else rsclip_jax/jax in
    the user's cache folder (XDG_CACHE_HOME, or ~/.cache). Without a folder that can be
    written to, "auto" is none. Bounds that variables of JAX's set are kept.

    JAX's key has the program, the compiler's version and options, and the processor's
    features or the accelerator, so that several machines may share a folder; JAX locks
    it for each access.

    Raises ValueError for a named folder that cannot be written to.
    """
    if not setting:
        return {"jax_enable_compilation_cache": False}
    if setting == AUTO and environ.get(VARIABLE):
        return {}
    if setting == AUTO:
        folder = _users_folder(environ)
    else:
        folder = Path(setting).expanduser().absolute()
    if error := _find_fault(folder):
        if setting == AUTO:
            return {"jax_enable_compilation_cache": False}
        raise ValueError(
            f"compile_cache = {setting!r}: cannot write there ({error}); name another"
            " folder, or '' to compile each time"
        )
    remove_unfinished(folder)
    options = {
        _DIR: str(folder),
        "jax_compilation_cache_max_size": MAX_BYTES,
        "jax_persistent_cache_min_compile_time_secs": MIN_SECONDS,
    }
    return {k: v for k, v in options.items() if k == _DIR or k.upper() not in environ}


def _users_folder(environ: Mapping[str, str]) -> Path:
    base = environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):  # the standard says to ignore others
        base = os.path.join(environ.get("HOME", ""), ".cache")
    return Path(base) / "rsclip_jax" / "jax"


def _find_fault(folder: Path) -> str:
    """Why a folder cannot be written to; "" if it can, and then it is there."""
    if not folder.is_absolute():
        return "not an absolute path"
    try:
        # not for others, who could put programs there that we would run
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def remove_unfinished(folder: Path) -> None:
    """Removes entries whose writing was killed: JAX would fail on them for ever.

    JAX writes an entry, then the time of its use.
    """
    now = time.time()
    for entry in folder.glob("*-cache"):
        used = entry.with_name(f"{entry.name.removesuffix('-cache')}-atime")
        try:
            if not used.exists() and now - entry.stat().st_mtime > _WRITING_SECONDS:
                entry.unlink()
        except OSError:  # another run has just removed it
            continue
