"""meta.json: what is written, what is left out, and files of other versions."""

import json

import pytest

from rsclip_jax.records.meta import AlphaChoice, StageMeta, read_meta, write_meta

MADE = {"digest": "ab12", "steps": 7, "git_commit": "", "devices": "1 x cpu"}
CHOICE = {"alpha": 0.4, "alpha_ci95": [0.2, 0.6], "alpha_chosen_by": "validation"}
CHOICE["alpha_blocks"] = None
NONE = {"alpha": None, "alpha_ci95": None, "alpha_chosen_by": "validation"}
NONE["alpha_blocks"] = None


@pytest.mark.parametrize(
    "values",
    [
        {},
        {**MADE, "stage": "pretrain", "sources": {}},
        {**MADE, **CHOICE, "stage": "patch", "sources": {"theta_0": {"digest": "e"}}},
        {**MADE, **NONE, "rounds": [{**CHOICE, "train": "d:train"}]},
        {"records": 3, "model": {"patch": "ab12"}, "reference": {}, "data": {"d": "1"}},
        {"models": ["a"], "published": [["a", "d", "accuracy", 62.5, "paper"]]},
        {**MADE, "a_key": "of another version"},
    ],
    ids="empty pretrain patch rounds evaluate survey other".split(),
)
def test_a_file_comes_back_as_it_was(tmp_path, values):
    (tmp_path / "meta.json").write_text(json.dumps(values))
    write_meta(tmp_path / "again", read_meta(tmp_path))
    assert json.loads((tmp_path / "again" / "meta.json").read_text()) == values


def test_fields_are_read_by_name(tmp_path):
    rounds = (AlphaChoice(alpha=0.4, alpha_chosen_by="validation", train="d:train"),)
    write_meta(tmp_path, StageMeta(stage="patch", rounds=rounds, digest="ab12"))
    found = read_meta(tmp_path)
    assert found.rounds == rounds
    assert (found.stage, found.digest, found.alpha) == ("patch", "ab12", None)
