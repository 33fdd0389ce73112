"""Eight fake devices, strict jax, annotations checked; set before jax is imported."""

import os

from tests.helpers import xla

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of the suite's time is compilation: a sixth as long with few of LLVM's
# optimisations and the flags of helpers/xla.py (.ci/run trains, ranks and compares with
# torch with all). Programs are kept.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
flags = os.environ.get("XLA_FLAGS", "")
if "xla_force_host_platform_device_count" not in flags:
    os.environ["XLA_FLAGS"] = f"{flags} {xla.flags(8)}"
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR",
    os.path.join(os.path.dirname(__file__), "..", ".cache", "jax"),
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")

import resource  # noqa: E402
import shutil  # noqa: E402
import signal  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402

import filelock  # noqa: E402
import jaxtyping  # noqa: E402
import numpy as np  # noqa: E402

# Shapes in annotations are checked on every call of the pure modules.
hook = jaxtyping.install_import_hook(
    ["rsclip_jax.losses", "rsclip_jax.metrics"], "beartype.beartype"
)

import jax  # noqa: E402
import pytest  # noqa: E402

from rsclip_jax.train.sharding import make_mesh  # noqa: E402

# A shell starts a command in the background with Ctrl-C ignored, and so would every
# process be that a test starts and sends one.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

REPO = Path(__file__).resolve().parents[1]
REAL_DATA = REPO.parent / "shared" / "data"
# A fixture -> the marker of all tests that use it, also through other fixtures.
MARKERS = {"real_data": "real", "torch_python": "parity", "golden": "parity"}


def pytest_configure(config):
    """Fails, and never skips, where the fake devices are missing."""
    config.pluginmanager.register(Account(config), "account")
    if jax.device_count() != 8:
        raise pytest.UsageError(
            f"the tests need 8 (fake) devices and found {jax.device_count()}:"
            " unset XLA_FLAGS and JAX_PLATFORMS"
        )


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items):
    for item in items:
        for name in MARKERS.keys() & set(getattr(item, "fixturenames", ())):
            item.add_marker(MARKERS[name])


def cpu_seconds() -> float:
    """CPU time of this process and of the subprocesses that it waited for."""
    used = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(u.ru_utime + u.ru_stime for u in used)


class Account:
    """CPU time of the whole session and the slow tests that it left out.

    pytest-xdist's workers report theirs to the process that started them, whose own
    count of finished children would miss a worker that is still alive.
    """

    def __init__(self, config):
        self.config, self.workers, self.slow = config, [], 0

    def pytest_deselected(self, items):
        self.slow += sum(item.get_closest_marker("slow") is not None for item in items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node, error):
        del error
        told = getattr(node, "workeroutput", {})
        self.workers.append(told.get("cpu_seconds", 0.0))
        self.slow = max(self.slow, told.get("slow", 0))

    def pytest_sessionfinish(self):
        if hasattr(self.config, "workeroutput"):
            told = {"cpu_seconds": cpu_seconds(), "slow": self.slow}
            self.config.workeroutput.update(told)

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter):
        own = resource.getrusage(resource.RUSAGE_SELF)
        total = own.ru_utime + own.ru_stime + sum(self.workers)
        if not self.workers:
            total = cpu_seconds()
        terminalreporter.line(f"CPU time of all processes: {total:,.0f} s")
        if self.slow:
            terminalreporter.line(
                f"{self.slow} slow tests were left out; they run with:"
                " python -m pytest -m slow"
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
def torch_python() -> str:
    """A Python with torch, open_clip, timm and transformers; skips where none is."""
    python = os.environ.get("RSCLIP_TORCH_PYTHON", "")
    if not python:
        pytest.skip(
            "needs a Python with torch (tests/golden/requirements.txt) in"
            " RSCLIP_TORCH_PYTHON"
        )
    return python


@pytest.fixture(scope="session")
def golden() -> Callable[[str], dict[str, np.ndarray]]:
    """golden(name): the arrays of <name>_out.npz, which torch computed."""
    from tests.golden import FOLDER

    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(FOLDER / f"{name}_out.npz") as file:
            return dict(file)

    return load


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory) -> Path:
    """The workdir of a whole run, all four stages, at toy size; only to be read.

    One worker of pytest-xdist makes it for all.
    """
    from tests.helpers.runs import run_tiny, tiny_config

    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    workdir, done = folder / "tiny" / "run", folder / "tiny" / "done"
    with filelock.FileLock(folder / "tiny.lock"):
        if not done.exists():
            shutil.rmtree(workdir, ignore_errors=True)
            run_tiny(workdir, tiny_config())
            done.touch()
    return workdir
