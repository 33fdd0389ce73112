"""Compiled programs between runs: the folder, its bounds, kills, several processes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rsclip_jax.train import compile_cache
from rsclip_jax.train.compile_cache import cache_options, remove_unfinished
from tests.conftest import REPO

OFF = {"jax_enable_compilation_cache": False}


def folder_of(options):
    return options["jax_compilation_cache_dir"]


@pytest.mark.parametrize("xdg", ["", "not/absolute"])
def test_the_users_cache_folder_by_default(tmp_path, xdg):
    options = cache_options("auto", {"HOME": str(tmp_path), "XDG_CACHE_HOME": xdg})
    assert folder_of(options) == str(tmp_path / ".cache" / "rsclip_jax" / "jax")
    assert options["jax_compilation_cache_max_size"] == 2 * 2**30
    assert Path(folder_of(options)).stat().st_mode & 0o77 == 0  # for its user alone


def test_the_variables_of_the_system_and_of_jax_count(tmp_path):
    there = {"HOME": "/nowhere", "XDG_CACHE_HOME": str(tmp_path)}
    options = cache_options("auto", there)
    assert folder_of(options) == str(tmp_path / "rsclip_jax" / "jax")
    named = {**there, "JAX_COMPILATION_CACHE_DIR": "/elsewhere"}
    assert cache_options("auto", named) == {}  # JAX reads its own variable
    bounded = cache_options("auto", {**there, "JAX_COMPILATION_CACHE_MAX_SIZE": "9"})
    assert options.keys() - bounded.keys() == {"jax_compilation_cache_max_size"}


def test_a_named_folder_goes_before_jaxs_variable(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named = {"JAX_COMPILATION_CACHE_DIR": "/elsewhere"}
    assert folder_of(cache_options("kept", named)) == str(tmp_path / "kept")
    assert cache_options("", named) == OFF


def test_without_a_home_that_can_be_written_to_there_is_none(tmp_path):
    (tmp_path / "file").write_text("")
    assert cache_options("auto", {"HOME": str(tmp_path / "file")}) == OFF
    assert cache_options("auto", {}) == OFF
    where = str(tmp_path / "file" / "kept")
    wanted = rf"compile_cache = {re.escape(repr(where))}: .*\(Not a directory\); name"
    with pytest.raises(ValueError, match=wanted):
        cache_options(where, {})


def test_an_entry_whose_writing_was_killed_is_removed(tmp_path, monkeypatch):
    for name in ("whole-cache", "whole-atime", "cut-cache", "young-cache"):
        (tmp_path / name).write_text("")
    old = os.stat(tmp_path).st_mtime - 2 * compile_cache._WRITING_SECONDS
    for name in ("whole-cache", "cut-cache"):
        os.utime(tmp_path / name, (old, old))
    remove_unfinished(tmp_path)
    left = sorted(p.name for p in tmp_path.iterdir())
    assert left == ["whole-atime", "whole-cache", "young-cache"]


SCRIPT = """
import sys
import warnings
warnings.simplefilter("error")
import jax, jax.numpy as jnp
from rsclip_jax.train.compile_cache import cache_options
for name, value in cache_options(sys.argv[1]).items():
    jax.config.update(name, value)
events = []
jax.monitoring.register_event_listener(lambda name, **_: events.append(name))
for n in range(5):
    jax.jit(lambda x: jnp.sin(x) @ x.T + n)(jnp.ones((4, 4))).block_until_ready()
print(events.count("/jax/compilation_cache/cache_hits"))
"""


def start(folder):
    env = {
        **os.environ,
        "XLA_FLAGS": "",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder)],
        cwd=REPO, env=env, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def hits(process):
    out, _ = process.communicate(timeout=280)
    assert process.returncode == 0
    return int(out)


@pytest.mark.slow
def test_several_processes_share_a_folder_and_the_next_compiles_nothing(tmp_path):
    together = [start(tmp_path) for _ in range(2)]
    assert all(hits(one) <= 6 for one in together)
    whole = sorted(p.name for p in tmp_path.glob("*-cache"))
    assert len(whole) >= 6  # the five programs, and what makes the array
    assert hits(start(tmp_path)) == len(whole)
    (tmp_path / whole[0]).with_name(
        whole[0].removesuffix("-cache") + "-atime"
    ).unlink()  # as a kill leaves it
    os.utime(tmp_path / whole[0], (0, 0))
    assert hits(start(tmp_path)) == len(whole) - 1
    assert hits(start(tmp_path)) == len(whole)  # it was written again
