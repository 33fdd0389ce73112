"""The predicted cost of a step on TPUs: a toy step compiled, and the page's sums."""

import json

import jax
import pytest

from rsclip_jax.models.variants import get_variant
from rsclip_jax.train import sharding, tpu
from tests.bench import tpu_aot, tpu_table

HLO = """HloModule toy

%fused (p: bf16[8]) -> bf16[8] {
  %g = bf16[8,4] all-gather(%p), channel_id=3, dimensions={0}
}

ENTRY %main (a: f32[8]) -> f32[8] {
  %a = f32[8]{0:T(128)} parameter(0)
  %b = bf16[8]{0:T(128)} fusion(%a), calls=%fused, metadata={op_name="jit(train_step)\
/jvp(VisionTransformer)/blocks_0/c_fc/dot"}, backend_config={"estimated_cycles":"30"}
  %c = bf16[8]{0:T(128)} fusion(%a), calls=%fused, metadata={op_name="jit(train_step)\
/jvp(VisionTransformer)/blocks_11/c_fc/dot"}, backend_config={"estimated_cycles":"30"}
  %d = f32[8] fusion(%a), backend_config={"estimated_cycles":"40"}
  %s = (f32[10,3], bf16[2,2]{1,0}) all-reduce-start(%d, %b), channel_id=1
  ROOT %r = (f32[10,3], bf16[2,2]) all-reduce-done(%s), channel_id=1
}
"""


@pytest.mark.skipif(not tpu.has_compiler(), reason="libtpu is not installed")
@pytest.mark.parametrize("stage", ["patch", "embed"])
def test_a_toy_step_is_compiled_for_four_chips(stage, capsys, tmp_path):
    path, step = tmp_path / "rows.jsonl", tpu_aot.Step(stage, "mini", 16, layers=1)
    assert tpu_aot.measure_changed(step, path)
    assert not tpu_aot.measure_changed(step, path)
    (row,) = tpu_table.read(path)
    assert row["program"] != tpu_aot.digest_of(step._replace(precision="float32"))
    assert row["chips"] == 4
    assert 0 < row["mfu"] < 1
    assert row["ms"] == pytest.approx(1e3 * 16 / row["examples_s_chip"], rel=0.02)
    assert json.dumps(row)
    shares = [share for _, share, _ in row["top"]]
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) <= 1.001
    assert ("all-reduce" in row["exchange_mb"]) == (stage == "patch")
    assert "MFU" in capsys.readouterr().out


@pytest.mark.parametrize("stage", tpu_aot.STAGES)
def test_a_step_of_each_stage_is_put_together(stage):
    step = tpu_aot.Step(stage, "mini", 4, layers=1)
    mesh = sharding.make_mesh()
    program, flops = tpu_aot.make_program(step, mesh, tpu_aot.variant_of(step))
    out = jax.eval_shape(program.function, *program.arguments(4 * mesh.size))
    assert flops > 0
    if stage == "embed":
        assert out.shape == (4 * mesh.size, get_variant("mini").embed_dim)
    else:
        assert jax.tree.structure(out[0]) == jax.tree.structure(program.fixed[0])


def test_model_flops_are_those_counted_by_hand():
    # 50 tokens: qkv 3, out 1 and mlp 8 products of width^2, two of tokens^2 width
    want = 12 * (2 * 50 * 12 * 768**2 + 2 * 2 * 50**2 * 768)
    assert tpu_aot.flops_of_tower(get_variant("ViT-B/32")) == want


def test_operations_of_all_blocks_count_as_one():
    assert tpu_aot.dearest(HLO, 5) == [
        ("blocks/c_fc/dot", 0.6, 0.0),
        ("fusion, no name", 0.4, 0.0),
    ]


def test_an_exchange_counts_once_also_inside_a_fusion():
    want = {"all-reduce": 4 * 30 + 2 * 4, "all-gather": 2 * 32}
    assert tpu_aot.exchanged_bytes(HLO) == want


def row(**values):
    made = tpu_aot.Step("patch", "ViT-B/32", 256)._asdict()
    made |= {"chips": 4, "ms": 100.0, "examples_s_chip": 2560.0, "mfu": 0.5}
    made |= {"arguments_gib": 1.0, "temp_gib": 2.0, "compile_s": 60, "cycles_m": 150.0}
    made |= {"exchange_mb": {"all-reduce": 100.0}, "top": [["x/dot", 0.5, 75.0]]}
    return made | values


@pytest.mark.parametrize(
    ("topology", "chips", "rate"),
    [("v5e:2x2", 4, 100e9), ("v5e:16x16", 256, 200e9), ("v5p:2x2x1", 4, 200e9)],
)
def test_exchanges_are_bounded_by_the_links(topology, chips, rate):
    found = tpu_table.exchange_seconds(row(topology=topology, chips=chips))
    assert found == pytest.approx(2 * 100e6 * (chips - 1) / chips / rate)
    gathered = row(topology=topology, chips=chips, exchange_mb={"all-gather": 100.0})
    assert tpu_table.exchange_seconds(gathered) == pytest.approx(found / 2)


def test_a_row_is_replaced_and_the_page_tells_what_is_missing(tmp_path):
    path, key = tmp_path / "tpu_aot.jsonl", tpu_aot.Step._fields
    tpu_table.keep(path, row(ms=120.0), key)
    tpu_table.keep(path, row(topology="v5e:16x16", chips=256, ms=101.0), key)
    tpu_table.keep(path, row(), key)
    assert sorted(r["ms"] for r in tpu_table.read(path)) == [100.0, 101.0]
    steps = [
        tpu_aot.Step("patch", "ViT-B/32", 256, t) for t in ("v5e:2x2", "v5e:16x16")
    ]
    absent = tpu_aot.Step("patch", "ViT-L/14", 32)
    asked = [step._asdict() for step in (*steps, absent)]
    assert tpu_table.write(tmp_path, asked) == [absent._asdict()]
    page = (tmp_path / "tpu_aot.md").read_text()
    assert "Not compiled yet: patch ViT-L/14, 32 examples a chip on v5e:2x2." in page
    assert "| patch ViT-B/32 | 256 | v5e:2x2 | 100.0 | 2,560 | 50.0 % |" in page
    assert (
        "| patch ViT-B/32, v5e | 71 ms | 100.0 ms, 50.0 %: missed | the forms" in page
    )
    # 1.5 ms of exchanges on 4 chips, 0.99609 on 256
    assert f"| 256 | 101.0 | 102.0 | {100 * 101.5 / 101.99609:.1f} % |" in page
    assert "| 50.0 % | 75.00 | x/dot |" in page


def test_the_committed_page_is_that_of_the_committed_rows(tmp_path):
    rows = (tpu_aot.FOLDER / "tpu_aot.jsonl").read_text()
    (tmp_path / "tpu_aot.jsonl").write_text(rows)
    tpu_table.write(tmp_path, [step._asdict() for step in tpu_aot.ROWS])
    page = (tmp_path / "tpu_aot.md").read_text()
    assert page == (tpu_aot.FOLDER / "tpu_aot.md").read_text()
