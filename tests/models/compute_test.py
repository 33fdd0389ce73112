"""Number formats, recomputation, the loop over layers: what each makes of a program."""

import functools
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rsclip_jax.data.sensors import get_sensor
from rsclip_jax.models import compute as computing
from rsclip_jax.models import long_attention, tiles
from rsclip_jax.models.clip import (
    CLIP,
    clip_shapes,
    image_features,
    init_clip,
    text_features,
)
from rsclip_jax.models.compute import (
    DTYPES,
    FLOAT32,
    LAYOUTS,
    Compute,
    check_attention,
    compute_here,
    layout_of,
)
from rsclip_jax.models.inference import encode_rgb
from rsclip_jax.models.sensor import init_sensor, sensor_features, vit_spec
from rsclip_jax.models.variants import Variant, get_variant
from rsclip_jax.models.vit import attend, stack_blocks, unstack_blocks
from rsclip_jax.weights import load_clip
from tests.golden import FOLDER, toy_variant
from tests.helpers.drawn import draw
from tests.helpers.marks import slow

BFLOAT16 = Compute("bfloat16")
SIZES = {"context_length": 24, "vocab_size": 500}
VIT = Variant("toy", 16, 32, 8, 32, 3, 2, 16, 2, 1, "quick_gelu", **SIZES)
# three heads of 64 channels, which do not pair, and another activation
LONE = Variant("lone", 16, 32, 8, 192, 1, 3, 16, 1, 1, "gelu", **SIZES)
# 257 and 197 tokens, as ViT-L/14 and ViT-B/16 have
LONG = Variant("long", 16, 32, 2, 32, 1, 2, 16, 1, 1, "gelu", **SIZES)
FILLED = Variant("filled", 16, 28, 2, 32, 1, 2, 16, 1, 1, "quick_gelu", **SIZES)
RESNET = Variant("resnet", 16, 32, 32, 8, (1, 1, 1, 1), 4, 16, 1, 1, "gelu", **SIZES)


def draw_rgb(variant, rows=4):
    shape = (rows, variant.image_size, variant.image_size, 3)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def draw_text(rows=4):
    return np.random.default_rng(1).integers(1, 400, (rows, 12)).astype(np.int32)


@functools.cache
def make_params(variant, seed=0):
    """Random params, larger than the initial ones, whose residuals are near zero."""
    rng = np.random.default_rng(seed)
    start = jax.device_get(init_clip(variant, jax.random.key(seed)))
    return jax.tree.map(
        lambda x: (x + 0.02 * rng.normal(size=x.shape)).astype(np.float32), start
    )


@pytest.fixture(scope="module", params=[VIT, RESNET], ids=["vit", "resnet"])
def model(request):
    return request.param, make_params(request.param)


def features(params, rgb, text, variant, compute):
    fimg = image_features(params["visual"], rgb, variant, compute)
    return fimg, text_features(params["text"], text, variant, compute)


def loss_of(params, rgb, text, variant, compute):
    fimg, ftxt = features(params, rgb, text, variant, compute)
    return jnp.mean(jnp.sin(fimg) * jnp.cos(ftxt))


def lower(variant, params, compute, rows=4):
    """The loss and its gradient before compilation."""
    fn = partial(loss_of, variant=variant, compute=compute)
    args = params, draw_rgb(variant, rows), draw_text(rows)
    return jax.jit(jax.value_and_grad(fn)).lower(*args)


def cosines(a, b) -> np.ndarray:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return np.sum(a * b, axis=-1) / lengths


# float32 and bfloat16


def products(text: str) -> list[str]:
    return re.findall(r"stablehlo\.(?:dot_general|convolution).*", text)


def test_every_product_of_float32_has_full_precision(model):
    variant, params = model
    found = products(lower(variant, params, FLOAT32).as_text())
    assert len(found) > 60
    for line in found:
        assert line.count("HIGHEST") == 2, line


def test_every_product_of_a_tower_in_bfloat16_takes_bfloat16(model):
    variant, params = model
    found = products(lower(variant, params, BFLOAT16).as_text())
    wide = [line for line in found if "HIGHEST" in line]
    # the maps to the embedding, forward and backward, of both towers
    assert len(wide) == 6
    narrow = [line for line in found if line not in wide]
    assert len(narrow) > 50
    factors = [line.split(" : ")[-1].split("->")[0] for line in narrow]
    # softmax gives its gradient in float32, for the queries and for the keys
    attentions = 1 if variant is RESNET else variant.vision_layers
    attentions += variant.text_layers
    assert sum("bf16" not in types for types in factors) == 2 * attentions


def set_lanes(monkeypatch, lanes):
    """The form for TPUs as if their tiles were so wide."""
    monkeypatch.setattr(tiles, "LANES", lanes)
    monkeypatch.setattr(long_attention, "LANES", lanes)


@pytest.mark.parametrize(
    ("dtype", "lanes"),
    [("float32", 128), ("bfloat16", 128), slow("float32", 16), ("bfloat16", 16)],
)
def test_products_of_the_form_for_tpus_are_in_the_format_that_is_asked_for(
    dtype, lanes, monkeypatch
):
    set_lanes(monkeypatch, lanes)
    compute = Compute(dtype, layout="tiles")
    found = products(lower(VIT, make_params(VIT), compute).as_text())
    wide = [line for line in found if line.count("HIGHEST") == 2]
    if dtype == "float32":
        assert len(wide) == len(found) > 100
        return
    # the maps to the embedding, and LayerNorm's bias through two kernels of a block
    blocks = VIT.vision_layers + VIT.text_layers
    assert len(wide) == 6 + 3 * 2 * blocks
    factors = [line.split(" : ")[-1] for line in found if line not in wide]
    assert not [types for types in factors if "f32" in types.split("->")[0]]


@pytest.mark.parametrize(("lanes", "keys"), [(16, 16), slow(12, 24)])
def test_the_form_for_more_tokens_is_that_of_the_plain_program(
    lanes, keys, monkeypatch
):
    # 17 tokens: one apart from a whole tile, or all in two tiles
    set_lanes(monkeypatch, lanes)
    lowered = lower(VIT, make_params(VIT), Compute(layout="tiles"))
    shape = f"4x{VIT.vision_heads}x17x{keys}xf32"
    found = re.findall(rf"stablehlo.exponential .*{shape}", lowered.as_text())
    assert len(found) == VIT.vision_layers
    args = make_params(VIT), draw_rgb(VIT), draw_text()
    got = jax.device_get(lowered.compile()(*args))
    assert_equal(got, value_and_grad(VIT, FLOAT32))


def test_a_token_apart_or_added_counts_once():
    for n, shapes in ((257, (1, 256)), (197, (0, 256)), (256, (0, 256))):
        x = jnp.arange(n, dtype=jnp.float32)[None, :, None]
        last, rest, keys = long_attention.split(x)
        assert (last.shape[1], rest.shape[1]) == shapes
        together = jnp.concatenate([rest[:, :keys], last], axis=1)
        np.testing.assert_array_equal(together, x)
        assert bool((rest[:, keys:] == n - 1).all())


def test_the_form_goes_by_platform():
    assert [layout_of(x) for x in ("tpu", "cpu", "gpu")] == ["tiles", "rows", "rows"]
    assert compute_here("float32") == FLOAT32


def test_the_features_and_all_gradients_are_float32(model):
    variant, params = model
    args = params, draw_rgb(variant), draw_text()
    made = jax.eval_shape(partial(features, variant=variant, compute=BFLOAT16), *args)
    grad = jax.grad(partial(loss_of, variant=variant, compute=BFLOAT16))
    for leaf in jax.tree.leaves((made, jax.eval_shape(grad, *args))):
        assert leaf.dtype == jnp.float32


def test_softmax_and_normalisation_are_float32():
    jaxpr = str(
        jax.make_jaxpr(partial(loss_of, variant=VIT, compute=BFLOAT16))(
            make_params(VIT), draw_rgb(VIT), draw_text()
        )
    )
    for function in ("exp", "rsqrt", "reduce_sum", "reduce_max"):
        made = re.findall(rf":(\w+)\[[^\]]*\] = {function}[ \[]", jaxpr)
        assert made, function
        assert "bf16" not in made, function
    assert re.search(r":bf16\[[^\]]*\] = logistic", jaxpr)  # the activations are not


def converted(activation):
    """(variant, params) of a small CLIP that torch's open_clip made."""
    path = FOLDER / f"clip_toy_{activation}.safetensors"
    return load_clip(path, toy_variant(activation))


@pytest.mark.parametrize("name", ["quick_gelu", "gelu", "resnet"])
def test_bfloat16_embeddings_are_those_of_float32(name):
    if name == "resnet":
        variant, params = RESNET, make_params(RESNET)
    else:
        variant, params = converted(name)
    rgb = draw_rgb(variant, 16)
    text = np.random.default_rng(1).integers(1, variant.vocab_size, (16, 8))
    run = jax.jit(features, static_argnames=("variant", "compute"))
    wide = run(params, rgb, text, variant=variant, compute=FLOAT32)
    for layout in LAYOUTS if name != "resnet" else ("rows",):
        compute = Compute("bfloat16", layout=layout)
        narrow = run(params, rgb, text, variant=variant, compute=compute)
        for a, b in zip(wide, narrow, strict=True):
            found = cosines(a, b)
            assert found.min() >= 0.999
            assert found.min() < 1 - 1e-9  # they are not the same program


@pytest.mark.parametrize("variant", [FILLED, slow(LONG)], ids=["197", "257"])
def test_bfloat16_embeddings_of_many_tokens_are_those_of_float32(variant):
    params, rgb = make_params(variant)["visual"], draw_rgb(variant, 4)
    run = jax.jit(image_features, static_argnums=(2, 3))
    wide, narrow = (
        run(params, rgb, variant, Compute(dtype, layout="tiles")) for dtype in DTYPES
    )
    assert 0.999 <= cosines(wide, narrow).min() < 1 - 1e-9


@pytest.mark.slow
def test_bfloat16_embeddings_at_the_size_of_vit_b_32():
    variant = get_variant("ViT-B/32")
    params = draw(clip_shapes(variant)["visual"], 0)
    rgb = draw_rgb(variant, 4)
    wide, narrow, tiles = (
        encode_rgb(params, rgb, variant=variant, compute=c)
        for c in (FLOAT32, BFLOAT16, Compute("bfloat16", layout="tiles"))
    )
    assert cosines(wide, narrow).min() >= 0.999
    assert cosines(wide, tiles).min() >= 0.999


def test_bfloat16_embeddings_of_a_sensor():
    sizes = {"image_size": 16, "patch_size": 4, "width": 32, "layers": 2, "heads": 2}
    spec = vit_spec(get_sensor("s1_grd"), **sizes, out_dim=16)
    params = init_sensor(spec, jax.random.key(0))
    x = np.random.default_rng(0).normal(-15, 5, (8, 16, 16, 2)).astype(np.float32)
    run = jax.jit(sensor_features, static_argnums=(2, 3))
    found = cosines(run(params, x, spec, FLOAT32), run(params, x, spec, BFLOAT16))
    assert 0.999 <= found.min() < 1 - 1e-9


def rounded(x) -> np.ndarray:
    return np.asarray(jnp.asarray(x).astype(jnp.bfloat16).astype(jnp.float32))


def test_a_kernels_gradient_is_summed_in_float32():
    rng = np.random.default_rng(0)
    x, kernel = (rng.normal(size=s).astype(np.float32) for s in ((512, 8), (8, 4)))
    g = rng.normal(size=(512, 4)).astype(np.float32)
    y, back = jax.vjp(BFLOAT16.dot, x, kernel)
    dx, dkernel = back(jnp.asarray(g))
    np.testing.assert_allclose(y, rounded(x) @ rounded(kernel), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(dkernel, rounded(x).T @ rounded(g), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(dx, rounded(g) @ rounded(kernel).T, rtol=1e-5, atol=1e-5)
    # rounded to bfloat16 it would be off by up to 1 in 256
    assert np.abs(dkernel - rounded(dkernel)).max() > 1e-3
    _, back = jax.vjp(BFLOAT16.dot, x, jnp.asarray(kernel, jnp.bfloat16))
    assert back(jnp.asarray(g))[1].dtype == jnp.bfloat16


# recomputation


def operations(lowered) -> int:
    """How often the softmax of the visual tower's attention is computed."""
    return len(re.findall(r"stablehlo\.exponential .*x17x17xf32", lowered.as_text()))


def test_recomputation_is_in_the_program():
    params = make_params(VIT)
    made = {
        remat: lower(VIT, params, Compute(remat=remat)) for remat in computing.REMATS
    }
    softmax = {remat: operations(lowered) for remat, lowered in made.items()}
    layers = VIT.vision_layers
    assert softmax == {"none": layers, "dots": 2 * layers, "block": 2 * layers}
    dense = {remat: len(products(lowered.as_text())) for remat, lowered in made.items()}
    # "dots" multiplies queries and keys again, "block" the dense layers too
    assert dense["none"] < dense["dots"] < dense["block"]


@pytest.mark.slow
def test_recomputation_saves_memory():
    variant = Variant("deep", 16, 32, 4, 32, 4, 2, 16, 1, 1, "gelu", **SIZES)
    params = make_params(variant)
    used = {
        # in a loop: XLA's CPU compiler merges what is unrolled with the forward pass
        remat: lower(variant, params, Compute(remat=remat, scan=True), rows=16)
        .compile()
        .memory_analysis()
        .temp_size_in_bytes
        for remat in computing.REMATS
    }
    assert used["block"] < 0.8 * used["dots"], used
    assert used["dots"] < 0.8 * used["none"], used


@functools.cache
def value_and_grad(variant, compute):
    fn = partial(loss_of, variant=variant, compute=compute)
    args = make_params(variant), draw_rgb(variant), draw_text()
    return jax.device_get(jax.jit(jax.value_and_grad(fn))(*args))


def assert_equal(got, want):
    """Two losses with their gradients, up to rounding."""
    np.testing.assert_allclose(got[0], want[0], rtol=1e-6, atol=1e-7)
    largest = max(np.abs(x).max() for x in jax.tree.leaves(want[1]))
    for a, b in zip(*map(jax.tree.leaves, (got[1], want[1])), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6 * largest)


@pytest.mark.parametrize(
    ("variant", "how"),
    [
        (VIT, {"remat": "dots"}),
        slow(VIT, {"scan": True}),
        (VIT, {"scan": True, "remat": "block"}),
        (VIT, {"layout": "tiles"}),
        slow(LONE, {"layout": "tiles"}),
        slow(LONG, {"layout": "tiles"}),
        slow(FILLED, {"layout": "tiles", "remat": "dots"}),
        pytest.param(VIT, {"layout": "tiles", "remat": "dots"}, marks=pytest.mark.slow),
        pytest.param(VIT, {"layout": "tiles", "scan": True}, marks=pytest.mark.slow),
        pytest.param(RESNET, {"remat": "dots"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_outputs_and_gradients_are_those_of_the_plain_program(variant, how):
    got, want = (value_and_grad(variant, c) for c in (Compute(**how), FLOAT32))
    assert_equal(got, want)


# the loop over layers


def test_the_loop_compiles_one_layer():
    params = make_params(VIT)
    unrolled = lower(VIT, params, FLOAT32).as_text()
    looped = lower(VIT, params, Compute(scan=True)).as_text()
    assert "stablehlo.while" not in unrolled
    assert looped.count("stablehlo.while") >= 4  # two towers, forward and backward
    assert len(products(looped)) < 0.6 * len(products(unrolled))


def test_every_blocks_output_is_that_of_the_unrolled_tower():
    params, rgb = make_params(VIT), draw_rgb(VIT) / np.float32(255)
    text = draw_text()
    plain, looped = (
        jax.jit(CLIP(VIT, Compute(scan=scan)).apply)({"params": params}, rgb, text)
        for scan in (False, True)
    )
    assert plain[2].keys() == looped[2].keys()
    for name, want in plain[2].items():
        np.testing.assert_allclose(looped[2][name], want, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_params_of_a_loop_are_initialised_as_without():
    image, text = jnp.zeros((1, 32, 32, 3)), jnp.zeros((1, 24), jnp.int32)
    for how in ({"scan": True}, {"remat": "block"}):
        init = jax.jit(CLIP(VIT, Compute(**how)).init)
        made = init(jax.random.key(0), image, text)
        want = init_clip(VIT, jax.random.key(0))
        assert jax.tree.structure(made["params"]) == jax.tree.structure(want)
        for a, b in zip(*map(jax.tree.leaves, (made["params"], want)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_stacked_blocks_come_back_bit_for_bit():
    for tower in (
        make_params(VIT)["visual"],
        init_clip(VIT, jax.random.key(1))["text"],
    ):
        stacked = stack_blocks(tower)
        assert not [name for name in stacked if name.startswith("blocks_")]
        kernel = stacked["blocks"]["mlp"]["c_fc"]["kernel"]
        assert type(kernel) is type(tower["blocks_0"]["mlp"]["c_fc"]["kernel"])
        assert kernel.shape[0] == sum(name.startswith("blocks_") for name in tower)
        back = unstack_blocks(stacked)
        assert jax.tree.structure(back) == jax.tree.structure(dict(tower))
        jax.tree.map(np.testing.assert_array_equal, back, dict(tower))
        again = stack_blocks(back)
        jax.tree.map(np.testing.assert_array_equal, again, stacked)


def test_more_than_ten_blocks_are_stacked_by_number():
    tower = {f"blocks_{i}": {"w": np.array(i)} for i in (*range(2, 12), 0, 1)}
    np.testing.assert_array_equal(stack_blocks(tower)["blocks"]["w"], np.arange(12))


# attention


@pytest.mark.parametrize("causal", [False, True])
def test_attention_is_jaxs_own(causal):
    q, k, v = np.random.default_rng(0).normal(size=(3, 2, 5, 2, 8)).astype(np.float32)
    got = attend(q, k, v, causal=causal, compute=FLOAT32)
    want = jax.nn.dot_product_attention(q, k, v, is_causal=causal)
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_attention_elsewhere_calls_jaxs_own(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    q, k, v = np.random.default_rng(0).normal(size=(3, 2, 5, 2, 8)).astype(np.float32)
    run = partial(attend, causal=True, compute=FLOAT32)
    text = jax.jit(run).lower(q, k, v).as_text()
    found = products(text)
    assert len(found) == 2
    assert all(line.count("HIGHEST") >= 2 for line in found)
    want = jax.nn.dot_product_attention(q, k, v, is_causal=True)
    np.testing.assert_allclose(jax.jit(run)(q, k, v), want, atol=1e-6)


def test_cudnn_is_refused_where_it_cannot_run():
    fused = Compute("bfloat16", attention="cudnn")
    check_attention(fused, "gpu")
    check_attention(FLOAT32, "cpu")
    with pytest.raises(ValueError, match="'cudnn' needs bfloat16 on a GPU, not float"):
        check_attention(Compute(attention="cudnn"), "gpu")
    params = make_params(VIT)["visual"]
    with pytest.raises(ValueError, match="not bfloat16 on cpu: use 'auto'"):
        image_features(params, draw_rgb(VIT), VIT, fused)


@pytest.mark.parametrize("name", ["dtype", "remat", "attention", "layout"])
def test_an_unknown_value_is_named_with_the_known(name):
    with pytest.raises(ValueError, match=f"{name} = 'fast': use one of "):
        Compute(**{name: "fast"})
