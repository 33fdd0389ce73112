"""Paths that a user gives as text: a store's name never becomes a local folder."""

import json
import sys

import pytest

import rsclip_jax
from rsclip_jax import main
from rsclip_jax.main import run_stages
from rsclip_jax.records.lost import find_lost
from rsclip_jax.stages.align import teacher
from rsclip_jax.stages.align.settings import read_settings
from rsclip_jax.stages.registry import check_sections, find_stages
from tests.helpers.object_store import BUCKET, environment, serving
from tests.helpers.runs import make_run, run_tiny, tiny_config


@pytest.fixture(autouse=True)
def no_new_folder(tmp_path, monkeypatch):
    """The working directory stays as it was."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not any(p.name in ("gs:", "s3:") for p in tmp_path.iterdir())
