"""One pass over a source: order, padding, unreadable records."""

import numpy as np
import pytest
from PIL import Image

from rsclip_jax.data import datasets
from rsclip_jax.data.catalog import datasets as rows
from rsclip_jax.data.sources.digests import split_digest
from rsclip_jax.data.types import ReadOptions
from rsclip_jax.evals.encode import encode_source
from tests.helpers.runs import few_scenes


def mean_colour(batch):
    return batch["rgb"].astype("float32").mean(axis=(1, 2))


def test_embeddings_keep_the_sources_order_over_a_padded_last_batch(mesh):
    with few_scenes():
        source = datasets.open_source("miniature", split="val")
        z, labels, seen = encode_source(
            source,
            {"m": mean_colour},
            sizes={"rgb": 32},
            mesh=mesh,
            options=ReadOptions(16),
        )
        want = np.stack([source[i]["rgb"].mean(axis=(0, 1)) for i in range(40)])
        expected = [source[i]["label"] for i in range(40)]
    np.testing.assert_allclose(z["m"], want, rtol=1e-5)
    np.testing.assert_array_equal(labels, expected)
    assert seen is source


def test_unreadable_records_are_left_out(mesh, tmp_path, capsys):
    for k, name in enumerate(rows.DATASETS["eurosat_rgb"].classes):
        path = tmp_path / "eurosat_rgb" / "val" / name / f"{name}_1.png"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (64, 64), (10 * k, 0, 0)).save(path)
    bad = tmp_path / "eurosat_rgb" / "val" / "Forest" / "Forest_1.png"
    bad.write_bytes(bad.read_bytes()[:40])
    source = datasets.open_source("eurosat_rgb", tmp_path, "val")
    kwargs = {"sizes": {"rgb": 8}, "mesh": mesh}
    with pytest.raises(ValueError, match=r"Forest_1\.png"):
        encode_source(source, {"m": mean_colour}, options=ReadOptions(8), **kwargs)
    z, labels, seen = encode_source(
        source, {"m": mean_colour}, options=ReadOptions(8, on_error="skip"), **kwargs
    )
    kept = [0, 2, 3, 4, 5, 6, 7, 8, 9]  # all but Forest, the second class
    np.testing.assert_array_equal(labels, kept)
    assert seen.ids == [source.ids[i] for i in kept]
    assert [seen[i]["label"] for i in range(len(seen))] == kept
    assert split_digest(seen) != split_digest(source)
    np.testing.assert_allclose(z["m"][:, 0], 10 * np.array(kept), rtol=1e-6)
    assert "Forest_1.png" in capsys.readouterr().err


def test_an_embedding_that_is_not_finite_names_its_record(mesh):
    def broken(batch):
        z = mean_colour(batch)
        return z.at[1, 0].set(np.nan)  # of each batch

    with few_scenes():
        source = datasets.open_source("miniature", split="val")
        with pytest.raises(ValueError, match=rf"'m' of 3 of 40 .*{source.ids[1]}'"):
            encode_source(
                source,
                {"m": broken},
                sizes={"rgb": 32},
                mesh=mesh,
                options=ReadOptions(16),
            )
