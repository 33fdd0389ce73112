"""What is trained, chosen and reported on is kept apart, or the stage refuses."""

import pytest

from rsclip_jax.stages.align.stage import check_align
from rsclip_jax.stages.patch.stage import check_patch
from rsclip_jax.stages.pretrain import check_pretrain
from rsclip_jax.stages.shared.overlap import shared_ids
from tests.helpers.runs import few_scenes, make_run, tiny_config

CHECKS = {"pretrain": check_pretrain, "patch": check_patch, "align": check_align}


def check(tmp_path, stage, **settings):
    config = tiny_config()
    with config.unlocked():
        config[stage].update(settings)
    with few_scenes():
        CHECKS[stage](make_run(tmp_path, config))


@pytest.mark.parametrize(
    ("stage", "settings", "words"),
    [
        (
            "patch",
            {"val": "miniature:train"},
            r"train = 'miniature:train' and config\.patch\.val = 'miniature:train'",
        ),
        (
            "patch",
            {"val": "miniature:train:16"},  # of tiles the images that they are cut from
            r"config\.patch\.val = 'miniature:train:16' share 64 records",
        ),
        ("patch", {"test": "miniature:train"}, r"config\.patch\.test"),
        (
            "patch",
            {"test": "miniature:val"},
            r"config\.patch\.val = .* and config\.patch\.test = ",
        ),
        (
            "patch",
            {"supported_test": ("miniature_natural:val",)},
            r"supported_val = .* and config\.patch\.supported_test = ",
        ),
        (
            "patch",
            {"supported_test": ("miniature:train:16",)},
            r"config\.patch\.supported_test = 'miniature:train:16' share 64 records",
        ),
        ("align", {"test": ("miniature:test", "miniature:train")}, r"align\.test"),
        (
            "pretrain",
            {"test": ("miniature_natural:train",)},
            r"config\.pretrain\.test = 'miniature_natural:train' share 64 records",
        ),
    ],
)
def test_datasets_that_share_records_are_refused_with_some_ids(
    tmp_path, stage, settings, words
):
    with few_scenes():
        run = make_run(tmp_path, tiny_config())
        ids = shared_ids(run.open("miniature:train"), run.open("miniature:train"))
    assert len(ids) == 64
    with pytest.raises(ValueError, match=words) as error:
        check(tmp_path, stage, **settings)
    told = str(error.value)
    assert f"--config.{stage}.allow_shared=True" in told
    if "miniature:train'" in told:
        assert f"({', '.join(ids[:3])}, ...)" in told
    check(tmp_path, stage, **settings, allow_shared=True)


def test_splits_that_are_apart_and_two_of_one_role_pass(tmp_path):
    for stage in CHECKS:
        check(tmp_path, stage)
    # both limit alpha or are reported: neither tells of the other
    both = ("miniature_natural:val",) * 2
    check(tmp_path, "patch", supported_val=both)


@pytest.mark.parametrize(
    ("stage", "settings", "words"),
    [
        (
            "patch",
            {"train": "miniature_aerial:train"},
            r"train = 'miniature_aerial:train', but config\.patch\.val = 'miniature:val"
            r"' and config\.patch\.test = 'miniature:test' is of another dataset: set"
            r" all of config\.patch\.train, config\.patch\.val, config\.patch\.test",
        ),
        (
            "patch",
            {"train": "miniature_aerial:train", "val": "miniature_aerial:val"},
            r"config\.patch\.test = 'miniature:test' is of another dataset",
        ),
        (
            "align",
            {"train": "miniature_multi:train"},
            r"config\.align\.test = 'miniature:test' is of another dataset",
        ),
        (
            "pretrain",
            {"train": ("miniature_aerial:train",)},
            r"config\.pretrain\.test = \('miniature_natural:test', 'miniature:test'\)",
        ),
    ],
)
def test_settings_left_at_the_configs_own_data_are_refused(
    tmp_path, stage, settings, words
):
    with pytest.raises(ValueError, match=words) as error:
        check(tmp_path, stage, **settings)
    assert f"--config.{stage}.allow_other_data=True" in str(error.value)
    check(tmp_path, stage, **settings, allow_other_data=True)
