"""Eight fake devices, strict jax, annotations checked; set before jax is imported."""

import os

flags = os.environ.get("XLA_FLAGS", "")
if "xla_force_host_platform_device_count" not in flags:
    flags += " --xla_force_host_platform_device_count=8"
os.environ["XLA_FLAGS"] = flags
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Compiled programs are kept between runs: most of the suite's time is compilation.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR",
    os.path.join(os.path.dirname(__file__), "..", ".cache", "jax"),
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")

from pathlib import Path  # noqa: E402

import jaxtyping  # noqa: E402

# Shapes in annotations are checked on every call of the pure modules.
hook = jaxtyping.install_import_hook(
    ["rsclip_jax.losses", "rsclip_jax.metrics"], "beartype.beartype"
)

import jax  # noqa: E402
import pytest  # noqa: E402

from rsclip_jax.train.sharding import make_mesh  # noqa: E402

REPO = Path(__file__).resolve().parents[1]
REAL_DATA = REPO.parent / "shared" / "data"


def pytest_configure(config):
    """Fails, and never skips, where the fake devices are missing."""
    del config
    if jax.device_count() != 8:
        raise pytest.UsageError(
            f"the tests need 8 (fake) devices and found {jax.device_count()}:"
            " unset XLA_FLAGS and JAX_PLATFORMS"
        )


@pytest.fixture(scope="session")
def mesh():
    """The plain mesh over the eight devices, (8, 1)."""
    return make_mesh((-1, 1))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real samples; skips where it is not there, as with most users."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"needs the real samples in {REAL_DATA}")
    return REAL_DATA


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory) -> Path:
    """The workdir of a whole run, all four stages, at toy size; only to be read."""
    from tests.helpers.runs import run_tiny, tiny_config

    workdir = tmp_path_factory.mktemp("tiny") / "run"
    run_tiny(workdir, tiny_config())
    return workdir
