"""Programs run without this package, and give the model's own embeddings."""

import importlib.util
import subprocess
import sys

import jax
import numpy as np
import pytest

from rsclip_jax import api
from rsclip_jax.data.sensors import SENSORS
from rsclip_jax.models.clip import init_clip
from rsclip_jax.models.sensor import SensorEncoder, init_sensor, vit_spec
from rsclip_jax.models.variants import get_variant
from rsclip_jax.weights.programs import PLATFORMS, list_programs, save_programs

VARIANT = get_variant("mini")
SPEC = vit_spec(
    SENSORS["s1_grd"],
    image_size=16,
    patch_size=8,
    width=32,
    layers=1,
    heads=2,
    out_dim=VARIANT.embed_dim,
)
TEXTS = ["a river", "a satellite photo of a forest", "!"]
# Fifteen lines that load and run every program; the rest of the environment is jax's.
SCRIPT = """
import pathlib
import sys
import numpy as np
from jax import export
folder = pathlib.Path(sys.argv[1])
given = np.load(folder / "in.npz")
out = {}
for path in folder.glob("*.stablehlo"):
    program = export.deserialize(path.read_bytes())
    x = given[path.stem]
    out[path.stem] = np.asarray(program.call(x))
    out[path.stem + "_one"] = np.asarray(program.call(x[:1]))
assert "rsclip_jax" not in sys.modules
np.savez(folder / "out.npz", **out)
"""


@pytest.fixture(scope="module")
def model():
    params = jax.device_get(init_clip(VARIANT, jax.random.key(0)))
    tower = jax.device_get(init_sensor(SPEC, jax.random.key(1)))
    encoder = SensorEncoder(SPEC, tower, "b", 0)
    return api.Model(VARIANT, params, {"s1": encoder}, "a")


@pytest.fixture(scope="module")
def given():
    from rsclip_jax.data.tokenizer import tokenize

    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (3, 32, 32, 3), np.uint8),
        "text": tokenize(TEXTS, VARIANT.context_length),
        "s1": rng.normal(-15, 5, (3, 16, 16, 2)).astype(np.float32),
    }


def embeddings(model, given):
    return {
        "image": model.encode_image(given["image"]),
        "text": model.encode_text(TEXTS),
        "s1": model.encode(given["s1"], "s1"),
    }


def save(model, folder, **options):
    sensors = {"s1": (SPEC, model.sensors["s1"].params)}
    return save_programs(folder, VARIANT, model.params, sensors, **options)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_script_without_the_package_gets_the_models_embeddings(
    model, given, tmp_path, dtype
):
    paths = save(model, tmp_path, dtype=dtype)
    assert [p.name for p in paths] == [f"{n}.stablehlo" for n in given]
    np.savez(tmp_path / "in.npz", **given)
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-I", script, tmp_path]  # neither here nor PYTHONPATH
    subprocess.run(command, check=True, timeout=120, cwd=tmp_path)
    with np.load(tmp_path / "out.npz") as file:
        out = dict(file)
    for name, want in embeddings(model, given).items():
        found = out[name]
        assert found.dtype == np.float32
        np.testing.assert_allclose(out[f"{name}_one"], found[:1], atol=1e-5)
        if dtype == "float32":
            np.testing.assert_allclose(found, want, atol=1e-5)
        else:
            assert (found * want).sum(axis=1).min() > 0.999


def test_one_program_is_for_every_platform_and_bfloat16_halves_it(model, tmp_path):
    from jax import export

    wide, narrow = (
        save(model, tmp_path / d, dtype=d)[0] for d in ("float32", "bfloat16")
    )
    assert export.deserialize(wide.read_bytes()).platforms == PLATFORMS
    assert narrow.stat().st_size < 0.6 * wide.stat().st_size


def test_what_does_not_fit_a_file_is_refused():
    huge = np.broadcast_to(np.float32(0), (2**15, 2**14))  # 2 GiB, of one number
    params = {"visual": {"a": huge}, "text": {}}
    with pytest.raises(ValueError, match=r"image: its weights of 2\.0 GiB.*bfloat16"):
        list_programs(VARIANT, params, {}, "float32")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "tflite"}, "kind 'tflite'.*stablehlo, onnx"),
        ({"dtype": "float16"}, "dtype 'float16'.*float32 or bfloat16"),
        ({"kind": "onnx", "dtype": "bfloat16"}, "dtypes float32"),
    ],
)
def test_other_kinds_are_refused(model, tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        save(model, tmp_path, **options)


HAS_ONNX = importlib.util.find_spec("jax2onnx") and importlib.util.find_spec(
    "onnxruntime"
)


@pytest.mark.skipif(bool(HAS_ONNX), reason="jax2onnx is there")
def test_onnx_says_what_it_needs(model, tmp_path):
    with pytest.raises(ImportError, match=r"requirements_onnx\.txt"):
        save(model, tmp_path, kind="onnx")


@pytest.mark.slow
@pytest.mark.skipif(
    not HAS_ONNX, reason="needs pip install --no-deps -r requirements_onnx.txt"
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_onnxruntime_gets_the_models_embeddings(model, given, tmp_path):
    import onnxruntime

    wanted = embeddings(model, given)
    for path in save(model, tmp_path, kind="onnx"):
        session = onnxruntime.InferenceSession(str(path))
        for count in (1, 3):
            (found,) = session.run(None, {"x": given[path.stem][:count]})
            np.testing.assert_allclose(found, wanted[path.stem][:count], atol=1e-4)
