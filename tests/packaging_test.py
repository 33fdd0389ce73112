"""The package as an installation has it: requirements, wheel, command, lazy names."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import rsclip_jax
from rsclip_jax.stages.shared.shipped_configs import FOLDER, find_shipped, list_shipped
from tests.conftest import REPO
from tests.helpers import xla

PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
RUNTIME = {
    canonicalize_name(r.name): r for r in map(Requirement, PROJECT["dependencies"])
}
EXTRAS = PROJECT["optional-dependencies"]
DEV = {canonicalize_name(r.name): r for r in map(Requirement, EXTRAS["dev"])}


PYTHONS = ("3.11", "3.12", "3.13", "3.14")


def read_pins(python: str) -> dict[str, str]:
    """{package: version} that requirements.txt pins for a version of Python."""
    lines = (REPO / "requirements.txt").read_text().splitlines()
    listed = [Requirement(text) for line in lines if (text := line.split("#")[0])]
    pins = {}
    for pin in listed:
        if pin.marker is None or pin.marker.evaluate({"python_version": python}):
            name = canonicalize_name(pin.name)
            assert name not in pins, f"{name} is pinned twice for Python {python}"
            (one,) = pin.specifier
            assert one.operator == "=="
            pins[name] = one.version
    return pins


@pytest.mark.parametrize("python", PYTHONS)
def test_requirements_pin_what_an_installation_and_the_tools_need(python):
    assert sorted(read_pins(python)) == sorted(RUNTIME.keys() | DEV.keys())
    assert not RUNTIME.keys() & DEV.keys()


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("name", [*RUNTIME, *DEV])
def test_every_pin_lies_within_its_range(name, python):
    found = {**RUNTIME, **DEV}[name]
    assert found.specifier.contains(read_pins(python)[name])
    assert not any(one.operator == "==" for one in found.specifier)
    assert name in DEV or found.specifier


def test_python_3_11_keeps_the_last_jax_that_it_has():
    pins = {python: read_pins(python)["jax"] for python in PYTHONS}
    assert pins.pop("3.11") == "0.10.2"
    assert all(Version(pin) > Version("0.11") for pin in pins.values())


def test_accelerators_are_extras_of_jax():
    found = {name: EXTRAS[name] for name in ("cuda", "cuda13", "tpu")}
    assert found == {
        "cuda": ["jax[cuda12]"],
        "cuda13": ["jax[cuda13]"],
        "tpu": ["jax[tpu]"],
    }


# Names of the package


def run_python(code: str, folder=REPO) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


PUBLIC = """
    losses.clip_loss interpolate.interpolate metrics.recall_at_k train_step.train_step
    weights.load_clip data.datasets.open_source data.sensors.SENSORS
    data.tokenizer.tokenize models.clip.CLIP load Model
""".split()


def test_one_import_gives_every_public_name():
    code = "import sys, rsclip_jax\n"
    for name in PUBLIC:  # each as if nothing had been imported before
        code += (
            f"print(rsclip_jax.{name})\n"
            "for name in [n for n in sys.modules if n.startswith('rsclip_jax')]:\n"
            "    del sys.modules[name]\n"
            "import rsclip_jax\n"
        )
    assert len(run_python(code).splitlines()) == len(PUBLIC)


def test_the_public_names_are_listed_before_they_are_loaded():
    code = "import rsclip_jax; print(*dir(rsclip_jax)); print(*rsclip_jax.__all__)"
    listed, public = (line.split() for line in run_python(code).splitlines())
    assert set(public) <= set(listed)
    assert {"load", "Model", "losses", "weights", "__version__"} <= set(public)
    with pytest.raises(AttributeError, match="no attribute 'lossses'"):
        rsclip_jax.lossses  # noqa: B018


def test_the_command_says_what_it_does_when_asked_for_help():
    code = "import sys; from rsclip_jax.main import run_command\n"
    code += "sys.argv = ['rsclip-jax', '--help']; run_command()"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True
    )
    assert "Runs config.stages in order" in done.stdout + done.stderr


# Shipped configs


def test_shipped_configs_are_found_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = str(FOLDER / "align_sar.py")
    for name in ("align_sar", "align_sar.py", "configs/align_sar.py"):
        for given in ([f"--config={name}"], [f"-config={name}"]):
            assert find_shipped(["main", *given]) == ["main", f"--config={path}"]
        assert find_shipped(["--config", name, "--a=b"]) == ["--config", path, "--a=b"]
        assert find_shipped([f"--config={name}:small"]) == [f"--config={path}:small"]
    kept = [
        "--config=mine/align_sar.py",
        "--config=/align_sar",
        "--config=nothing",
        "--config=align_sar.json",
        "--config=",
        "--config.seed=1",
        "--configs=align_sar",
        "align_sar",
    ]
    assert find_shipped(kept) == kept


def test_a_file_that_is_there_goes_before_a_shipped_config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inspect").mkdir()  # a folder is no config
    assert find_shipped(["--config=inspect"]) == [f"--config={FOLDER / 'inspect.py'}"]
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "inspect.py").touch()
    given = ["--config=configs/inspect.py"]
    assert find_shipped(given) == given


def test_every_config_that_is_started_is_listed():
    assert {"align_sar", "evaluate", "export", "pack"} <= set(list_shipped())
    assert not {"common", "__init__"} & set(list_shipped())


@pytest.mark.parametrize("name", list_shipped())
def test_a_config_imports_nothing_that_only_a_clone_has(name):
    text = (FOLDER / f"{name}.py").read_text()
    assert not re.search(r"^(from|import) configs\b", text, re.MULTILINE)
    assert "from rsclip_jax.configs import common" in text


# The wheel


def run(*command, folder, **env):
    done = subprocess.run(
        [*map(str, command)],
        cwd=folder,
        env={**os.environ, "XLA_FLAGS": xla.flags(), **env},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tracked() -> list[str]:
    files = run("git", "ls-files", folder=REPO).splitlines()
    return [name for name in files if (REPO / name).is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built of a copy of the tracked files: a build leaves folders where it runs."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in tracked():
        if name.split("/")[0] in ("rsclip_jax", "configs") or "/" not in name:
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "source" / name).write_bytes((REPO / name).read_bytes())
    pip = (sys.executable, "-m", "pip", "-q")
    options = ("--no-deps", "--no-build-isolation", "--no-index")
    run(*pip, "wheel", *options, "-w", ".", folder / "source", folder=folder)
    (path,) = folder.glob("*.whl")
    run(*pip, "install", "--no-deps", "--no-index", "-t", "site", path, folder=folder)
    return path


@pytest.mark.slow
def test_the_wheel_has_all_files_of_the_package_and_the_configs(wheel):
    with zipfile.ZipFile(wheel) as archive:
        files = {n for n in archive.namelist() if ".dist-info/" not in n}
    wanted = {
        re.sub(r"^configs/", "rsclip_jax/configs/", name)
        for name in tracked()
        if re.match(r"(rsclip_jax|configs)/.*(?<!\.md)$", name)
    }
    assert files == wanted
    assert wheel.name.startswith(f"rsclip_jax-{rsclip_jax.__version__}-")


@pytest.mark.slow
def test_the_installed_command_runs_a_shipped_config_anywhere(wheel, tmp_path):
    site = wheel.parent / "site"
    command = (sys.executable, site / "bin" / "rsclip-jax")
    env = {"PYTHONPATH": str(site)}
    said = run(*command, "--version", folder=tmp_path, **env)
    assert said == f"rsclip-jax {rsclip_jax.__version__}\n"
    run(
        *command,
        "--config=align_sar",
        "--config.stages=('pretrain',)",
        "--config.pretrain.steps=1",
        "--config.pretrain.warmup=0",
        folder=tmp_path,
        **env,
    )
    meta = (tmp_path / "runs" / "align_sar" / "pretrain" / "meta.json").read_text()
    assert f'"git_commit": "{rsclip_jax.__version__}"' in meta
    code = "import rsclip_jax.configs.common as c; print(c.__file__)"
    said = run(sys.executable, "-c", code, folder=tmp_path, **env)
    assert said.startswith(str(site))
