"""Recipes of stage patch: each trains what it says and lowers its loss."""

import functools
import json
import shutil

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

import rsclip_jax
from configs import common
from rsclip_jax import api, losses
from rsclip_jax.models.clip import clip_shapes, init_clip
from rsclip_jax.models.variants import Variant
from rsclip_jax.stages.patch import recipes
from rsclip_jax.stages.patch.fine_tune import fine_tune
from rsclip_jax.stages.patch.settings import PatchSettings, settings_of
from rsclip_jax.stages.patch.stage import check_patch
from rsclip_jax.stages.shared.scoring import zero_shot_head
from rsclip_jax.train import checkpoint, optim, resume
from rsclip_jax.weights import save_clip
from tests.golden import toy_resnet
from tests.helpers.marks import slow
from tests.helpers.runs import few_scenes, make_run, run_tiny, tiny_config

TINY = Variant("tiny", 16, 32, 8, 32, 2, 2, 16, 1, 1, "gelu")


@functools.cache
def visual_shapes(variant: Variant) -> dict:
    return clip_shapes(variant)["visual"]


def names_trained(variant: Variant, **settings) -> set[str]:
    """The names of what a recipe trains."""
    theta = visual_shapes(variant)
    rules = recipes.tower_rules(PatchSettings.of(common.patch(**settings)), theta)
    trained = optim.match_rules(rules, theta)
    names, values = (jax.tree.leaves(t) for t in (optim.leaf_names(theta), trained))
    return {name for name, value in zip(names, values, strict=True) if value}


def test_what_is_trained_of_a_vit_by_name():
    last = names_trained(TINY, recipe="last_blocks", last_blocks=1)
    assert {name.split("/")[0] for name in last} == {"blocks_1", "ln_post", "proj"}
    assert "blocks_1/attn/in_proj/kernel" in last
    norm = names_trained(TINY, recipe="norm")
    norms = ("ln_pre", "ln_post", *(f"blocks_{i}/ln_{j}" for i in (0, 1) for j in "12"))
    assert norm == {f"{name}/{x}" for name in norms for x in ("scale", "bias")}
    bias = names_trained(TINY, recipe="bias")
    dense = ("attn/in_proj", "attn/out_proj", "mlp/c_fc", "mlp/c_proj")
    assert bias == {
        *(f"{name}/bias" for name in norms),
        *(f"blocks_{i}/{name}/bias" for i in (0, 1) for name in dense),
    }


def test_what_is_trained_of_a_resnet_by_name():
    toy = toy_resnet()  # a stage of two blocks, layer2, among others of one
    last = names_trained(toy, recipe="last_blocks", last_blocks=3)
    first = {"layer2_1", "layer3_0", "layer4_0", "attnpool"}
    assert {name.split("/")[0] for name in last} == first
    norm = names_trained(toy, recipe="norm")
    assert {"bn1/scale", "layer1_0/bn3/bias", "layer1_0/downsample_bn/scale"} <= norm
    assert {name.rpartition("/")[2] for name in norm} == {"scale", "bias"}
    assert not [name for name in norm if "attnpool" in name]
    bias = names_trained(toy, recipe="bias")
    assert {"bn1/bias", "attnpool/q_proj/bias", "layer2_1/bn2/bias"} <= bias
    assert {name.rpartition("/")[2] for name in bias} == {"bias"}
    for recipe in ("norm", "bias", "lora"):
        section = common.patch(recipe=recipe)
        section.lora.rank = 2  # of a convolution from two channels to two
        recipes.check_tower(PatchSettings.of(section), visual_shapes(toy))


def test_the_full_recipe_leaves_it_to_the_rules():
    rules = ((r"blocks_1/.*", True), (".*", False))
    for recipe in ("full", "lp_ft"):
        trained = names_trained(TINY, recipe=recipe, trainable=rules)
        assert {name.split("/")[0] for name in trained} == {"blocks_1"}


FREEZE = (("blocks_.*", True), (".*", False))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"recipe": "lpft"}, r"recipe = 'lpft' is not known; use one of full, last_bl"),
        ({"loss": "ce"}, r"loss = 'ce' is not known; use one of labels, asymmetric"),
        ({"loss": "asymmetric"}, r"loss = 'asymmetric' needs images with several l"),
        (
            {"loss": "flyp", "train": "miniature_multi:train"},
            r"'flyp' needs images with one label each, but miniature_multi's have s",
        ),
        ({"loss": "flyp", "recipe": "lp_ft"}, r"'lp_ft' trains a head"),
        ({"loss": "flyp", "head": "trained"}, r"'trained' trains a head"),
        ({"head": "linear"}, r"head = 'linear' is not known; use one of text, trained"),
        ({"loss": "flyp", "label_smoothing": 0.1}, r"label_smoothing = 0\.1 does not"),
        ({"loss": "flyp", "class_balanced": 0.9}, r"class_balanced = 0\.9 does not"),
        ({"label_smoothing": 1.0}, r"label_smoothing = 1\.0 is not in \[0, 1\)"),
        ({"class_balanced": -0.1}, r"class_balanced = -0\.1 is not in \[0, 1\)"),
        ({"ema": 1.0}, r"ema = 1\.0 is not in \[0, 1\)"),
        ({"layer_decay": 0.0}, r"layer_decay = 0\.0 is not in \(0, 1\]"),
        ({"last_blocks": 0}, r"last_blocks = 0 is below 1"),
        ({"recipe": "lp_ft", "head_steps": 0}, r"head_steps = 0 is below 1"),
        ({"recipe": "lp_ft", "head_lr": -1.0}, r"head_lr = -1\.0 is below 0"),
        ({"head_lr": np.nan}, r"head_lr = nan is not a finite number"),
        ({"asymmetric.margin": np.nan}, r"asymmetric\.margin = nan is not a finite nu"),
        ({"lora.alpha": np.inf}, r"lora\.alpha = inf is not a finite number"),
        ({"asymmetric.margin": 1.0}, r"asymmetric\.margin = 1\.0 is out of range"),
        (
            {"recipe": "last_blocks", "last_blocks": 4},
            r"last_blocks = 4, but the tower has 3 blocks",
        ),
        (
            {"recipe": "bias", "trainable": FREEZE},
            r"trainable = .*'blocks_\.\*'.* and config\.patch\.recipe = 'bias' both",
        ),
        ({"trainable": (("blocks.*", True),)}, r"no rule covers class_embedding"),
        (
            {"recipe": "lora", "lora.targets": "attn/.*"},
            r"lora\.targets = 'attn/\.\*' matches none of the kernels blocks_0/attn",
        ),
        (
            {"recipe": "lora", "lora.targets": "("},
            r"lora\.targets: '\(' is not a regular",
        ),
        ({"recipe": "lora", "lora.alpha": 0.0}, r"lora\.alpha = 0\.0 is not above 0"),
        ({"trainable": (("(", True),)}, r"trainable: '\(' is not a regular expression"),
        (
            {"recipe": "lora", "lora.rank": 1000},
            r"lora\.rank = 1000 is not between 1 and \d+, the rank of blocks_0",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_before_training(tmp_path, settings, words):
    config = tiny_config()
    with config.unlocked():
        config.patch.update_from_flattened_dict(settings)
    run = make_run(tmp_path, config)
    with few_scenes(), pytest.raises(ValueError, match=rf"config\.patch\..*{words}"):
        check_patch(run)


def test_the_head_s_training_names_the_settings_of_patch(tmp_path):
    clip = tiny_clip()
    visual = jax.tree.map(lambda leaf: leaf * np.nan, clip.params["visual"])
    settings = {"head_steps": 2, "on_nonfinite": "skip", "max_skipped": 0}
    with few_scenes():
        run = make_run(tmp_path, recipe_config(recipe="lp_ft", **settings))
        source = run.open(run.config.patch.train)
        broken = api.Model(TINY, {**clip.params, "visual": visual}, {}, "a")
        with pytest.raises(FloatingPointError) as error:
            fine_tune(run, settings_of(run), broken, [source])
    assert "of at most config.patch.max_skipped = 0" in str(error.value)


@functools.cache
def tiny_clip() -> api.Model:
    params = jax.device_get(init_clip(TINY, jax.random.key(3)))
    return api.Model(TINY, params, {}, "a")


def recipe_config(**settings) -> ConfigDict:
    config = tiny_config(stages=("patch",))
    steps = {"steps": 12, "lr": 3e-3, "batch_size": 32, "warmup": 0}
    with config.unlocked():
        config.patch.update_from_flattened_dict({**steps, **settings})
    return config


def train_recipe(workdir, **settings):
    """(theta_1, the run, its training source)."""
    with few_scenes():
        run = make_run(workdir, recipe_config(**settings))
        source = run.open(run.config.patch.train)
        c = settings_of(run)
        recipes.check_recipe(run, c, [source])
        return jax.device_get(fine_tune(run, c, tiny_clip(), [source])), run, source


def loss_of(theta, source) -> float:
    """The loss of all training scenes through the zero-shot head."""
    records = [source[i] for i in range(len(source))]
    clip = tiny_clip()
    model = api.Model(TINY, {**clip.params, "visual": theta}, {}, clip.digest)
    logits = model.encode_image([r["rgb"] for r in records]) @ _head(source)
    labels = np.stack([r["label"] for r in records]).astype(np.int32)
    return float(losses.label_loss(logits, labels, source.dataset.task))


def _head(source) -> np.ndarray:
    return zero_shot_head(tiny_clip(), source)[0]


def moved_names(theta_1, theta_0=None) -> set[str]:
    """The names of the leaves that are not theta_0's bit for bit."""
    theta_0 = theta_0 or tiny_clip().params["visual"]
    names = jax.tree.leaves(optim.leaf_names(theta_0))
    leaves = zip(jax.tree.leaves(theta_0), jax.tree.leaves(theta_1), strict=True)
    same = [a.tobytes() == np.asarray(b).tobytes() for a, b in leaves]
    return {name for name, equal in zip(names, same, strict=True) if not equal}


LORA = {"recipe": "lora", "lora.rank": 4, "lr": 1e-2, "layer_decay": 0.8, "ema": 0.5}
LP_FT = {"recipe": "lp_ft", "head_steps": 4, "head_lr": 0.1, "class_balanced": 0.9}
MULTI = {"train": "miniature_multi:train"}


@pytest.mark.parametrize(
    "settings",
    [
        slow({}),
        slow({"recipe": "last_blocks", "last_blocks": 1, "ema": 0.5}),
        slow({"recipe": "norm", "lr": 2e-2}),
        slow({"recipe": "bias", "lr": 2e-2, "label_smoothing": 0.1}),
        slow(LORA),
        slow(LP_FT),
        slow({"loss": "flyp"}),
        slow(
            {**MULTI, "loss": "asymmetric", "layer_decay": 0.8, "class_balanced": 0.9}
        ),
    ],
    ids=lambda settings: "-".join(map(str, settings.values())) or "full",
)
def test_a_recipe_lowers_the_loss_and_moves_what_it_says(tmp_path, settings):
    theta_1, run, source = train_recipe(tmp_path, **settings)
    theta_0 = tiny_clip().params["visual"]
    assert loss_of(theta_1, source) < 0.97 * loss_of(theta_0, source)
    c = run.config.patch
    want = names_trained(TINY, **{k: c[k] for k in ("recipe", "last_blocks")})
    if c.recipe == "lora":
        want = {n for n in want if n.startswith("blocks") and n.endswith("kernel")}
    assert moved_names(theta_1) == want


@pytest.mark.slow
def test_a_resnet_s_convolutions_take_adapters_too(tmp_path):
    variant = Variant("rn", 16, 32, 32, 4, (1, 1, 1, 1), 2, 16, 1, 1, "gelu")
    params = jax.device_get(init_clip(variant, jax.random.key(3)))
    for i in (1, 2, 3, 4):  # 0 at first, which lets no gradient through
        last = params["visual"][f"layer{i}_0"]["bn3"]
        last["scale"] = last["scale"] + 1
    clip = api.Model(variant, params, {}, "a")
    settings = {**LORA, "steps": 2, "lora.targets": r"layer[34]_0/conv\d/kernel"}
    with few_scenes():
        run = make_run(tmp_path, recipe_config(**settings))
        theta_1 = fine_tune(run, settings_of(run), clip, [run.open("miniature:train")])
    want = {f"layer{i}_0/conv{j}/kernel" for i in (3, 4) for j in (1, 2, 3)}
    assert moved_names(theta_1, params["visual"]) == want


@pytest.mark.slow
def test_a_head_is_trained_first_and_the_tower_through_it(tmp_path):
    _, run, source = train_recipe(tmp_path, **LP_FT)
    clip, head_0 = tiny_clip(), _head(source)
    head_1 = checkpoint.load_trained(tmp_path / "patch" / "head")["head"]
    begun = resume.begun_sources(tmp_path / "patch")
    assert begun["head"] == {"digest": checkpoint.params_digest(head_1)}

    def loss(head):
        z = clip.encode_image([source[i]["rgb"] for i in range(len(source))])
        labels = np.array([source[i]["label"] for i in range(len(source))])
        c = settings_of(run)
        options = recipes.label_options(c)
        options["class_weights"] = recipes.balance_classes(run, c, source)
        return float(losses.label_loss(z @ head, labels, "single", **options))

    assert loss(head_1) < 0.97 * loss(head_0)
    # the first loss of the tower is that through the trained head
    head, tower = (
        [json.loads(x)["loss"] for x in path.read_text().splitlines()]
        for path in (tmp_path / f"patch/{x}metrics.jsonl" for x in ("head/", ""))
    )
    assert (len(head), len(tower)) == (4, 12)
    assert tower[0] < 0.97 * head[0]


def test_class_weights_are_those_of_the_training_split(tmp_path):
    with few_scenes():
        run = make_run(tmp_path, recipe_config(class_balanced=0.9))
        source = run.open("miniature:train")
        found = recipes.balance_classes(run, settings_of(run), source)
        labels = [source[i]["label"] for i in range(len(source))]
    counts = np.bincount(labels, minlength=len(source.dataset.classes))
    assert len(set(counts.tolist())) > 1
    want = losses.class_balanced_weights(counts, 0.9)
    np.testing.assert_array_equal(found, want)


def test_a_training_that_goes_on_ends_where_a_straight_one_does(tmp_path):
    straight, _, _ = train_recipe(tmp_path, **LORA, checkpoint_every=6)
    shutil.rmtree(tmp_path / "patch" / "checkpoints" / "12")
    resumed, _, _ = train_recipe(tmp_path, **LORA, checkpoint_every=6)
    jax.tree.map(np.testing.assert_array_equal, straight, resumed)
    kept = checkpoint.load_trained(tmp_path / "patch")
    jax.tree.map(np.testing.assert_array_equal, straight, kept)
    last = checkpoint.last_checkpoint(tmp_path / "patch") / "params"
    assert not list(last.glob("*theta*"))  # of the tower the checkpoint has nothing


@pytest.mark.slow
def test_a_merged_model_is_loaded_at_any_alpha(tmp_path):
    save_clip(tmp_path / "clip", TINY, tiny_clip().params)
    config = recipe_config(**LORA)
    with config.unlocked():
        config.update(init=str(tmp_path / "clip"), variant="")
        config.patch.update(supported_val=(), supported_test=(), bootstraps=5)
    records = run_tiny(tmp_path / "run", config)
    theta_1 = checkpoint.load_trained(tmp_path / "run" / "patch")
    model = rsclip_jax.load(tmp_path / "run", alpha=1.0)
    jax.tree.map(np.testing.assert_array_equal, model.params["visual"], theta_1)
    measured = {r.checkpoint for r in records if r.alpha == 1.0}
    assert measured == {model.digests["clip"]}
