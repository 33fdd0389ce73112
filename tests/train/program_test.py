"""Programs from shapes: their memory, largest batch and time."""

import dataclasses

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rsclip_jax.train import loop, objectives, program, sharding, tpu
from rsclip_jax.train.program import Memory, Program
from rsclip_jax.train.settings import TrainSettings, make_tx
from tests.helpers.runs import one_device

F32 = np.float32


def loss_fn(params, frozen, batch):
    hidden = jnp.tanh(batch["x"] @ params["w"])
    return jnp.mean((hidden @ frozen["v"]) ** 2), {}


def training(mesh, **settings):
    return program.make_training_program(
        {"w": jax.ShapeDtypeStruct((64, 128), F32)},
        {"v": jax.ShapeDtypeStruct((128, 16), F32)},
        {"x": jax.ShapeDtypeStruct((1, 64), F32)},
        loss_fn=loss_fn,
        tx=optax.adam(0.1),
        settings=TrainSettings(32, 10, 0.1, **settings),
        mesh=mesh,
    )


def test_arguments_are_counted_as_by_hand():
    one = training(one_device())
    w, v, x = 64 * 128, 128 * 16, 32 * 64
    found = one.memory(32)
    # params, two moments, frozen weights, batch, and two counts of steps
    assert found.arguments == 4 * (3 * w + v + x + 2)
    assert found.temporary >= 4 * w  # the gradient
    assert found.total == found.arguments + found.temporary


def test_parameters_on_the_fsdp_axis_are_shared(mesh):
    half = sharding.make_mesh((2, 4))
    w, v, x = 64 * 128, 128 * 16, 32 * 64
    assert training(mesh).memory(32).arguments == 4 * (3 * w + v + x // 8 + 2)
    found = training(half).memory(32).arguments
    assert found == 4 * ((3 * w + v) // 4 + x // 8 + 2)
    state, frozen = training(half).fixed
    assert program.device_bytes_of(state, half) == 4 * (3 * w // 4 + 2)
    assert program.device_bytes_of(frozen, half) == 4 * v // 4


@dataclasses.dataclass(frozen=True)
class Known(Program):
    """A program whose memory is a formula; counts its compilations."""

    fixed_bytes: int = 1000
    each: int = 10
    square: float = 0.0
    power: float = 1.0
    asked: list = dataclasses.field(default_factory=list)

    def memory(self, batch_size):
        self.asked.append(batch_size)
        used = int(self.each * batch_size**self.power + self.square * batch_size**2)
        return Memory(self.fixed_bytes, used)


def known(unit=4, **formula):
    return Known(None, (), {}, unit, **formula)


@pytest.mark.parametrize("square", [0.0, 0.02, 0.5])
@pytest.mark.parametrize("limit", [1500, 5000, 100_000])
def test_the_largest_batch_fits_and_is_near_the_limit(square, limit):
    one = known(square=square)
    two = {size: one.memory(size) for size in (8, 32)}
    found, is_sure = program.largest_batch(one, limit, two)
    assert found % one.unit == 0
    assert len(one.asked) <= 5  # two known sizes, and at most three more
    assert is_sure
    assert one.memory(found).total <= limit
    assert one.memory(found + one.unit).total > limit


def test_a_prediction_that_is_always_a_little_too_large_gets_a_margin():
    one = known(unit=1, each=1000, power=1.1)
    two = {size: one.memory(size) for size in (8, 32)}
    found, is_sure = program.largest_batch(one, 10_000_000, two)
    assert is_sure
    assert one.memory(found).total <= 10_000_000
    assert one.memory(int(found * 1.05)).total > 10_000_000


def test_no_batch_fits_below_the_fixed_memory():
    one = known()
    two = {size: one.memory(size) for size in (8, 32)}
    assert program.largest_batch(one, 900, two) == (0, True)


@pytest.mark.parametrize(
    ("unit", "size", "other"), [(1, 128, 32), (8, 64, 16), (8, 16, 8), (8, 8, 16)]
)
def test_the_other_size_is_smaller_where_it_can_be(unit, size, other):
    assert program.smaller_batch(known(unit), size) == other


def test_a_step_is_timed_with_its_state_passed_on():
    one = training(one_device())
    compiled = one.compile(32)
    calls = []

    class Counted:
        input_shardings = compiled.input_shardings

        def __call__(self, state, frozen, batch):
            calls.append(int(state.step))
            return compiled(state, frozen, batch)

    seconds = program.time_program(one, Counted(), 32, 60.0)
    assert 0 < seconds < 10
    first, *_ = calls
    assert calls == list(range(first, first + 6))  # donated, so never used twice


def test_the_program_is_the_step_of_the_loop(tmp_path, monkeypatch):
    """Accumulation and the moving average included."""
    seen, make_step = [], loop.make_training_step

    def kept(*args, **how):
        step = make_step(*args, **how)

        def call(*args):
            seen.append(program.memory_of(step.lower(*args).compile()))
            return step(*args)

        return call

    mesh, settings = one_device(), TrainSettings(8, 1, 0.1, accumulate=2, ema=0.9)
    objective = objectives.make_patch_loss(lambda p, b: b["x"] @ p["w"], "single")
    params = {"w": np.ones((4, 2), F32)}
    frozen = {"head": np.ones((2, 3), F32)}
    batch = {"x": np.ones((8, 4), F32), "label": np.zeros(8, np.int32)}
    made = program.make_training_program(
        *(jax.eval_shape(lambda x=x: x) for x in (params, frozen, batch)),
        loss_fn=objective,
        tx=make_tx(settings, params),
        settings=settings,
        mesh=mesh,
    )
    monkeypatch.setattr(loop, "make_training_step", kept)
    loop.train(
        params,
        frozen,
        iter(grain.MapDataset.range(1, 9).map(lambda _: batch).to_iter_dataset()),
        loss_fn=objective,
        tx=make_tx(settings, params),
        settings=settings,
        mesh=mesh,
        folder=tmp_path,
        meta={"sources": {}},
        progress=False,
    )
    assert made.unit == 2
    assert [made.memory(8)] == seen
    # params, their average and two moments, head, batch, and four counts of steps
    assert seen[0].arguments == 4 * (4 * 8 + 6 + 8 * 5 + 4)


# TPU

HLO = """HloModule toy

%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %p = (s32[], f32[8]) parameter(0)
  %f = f32[8] fusion(%p), kind=kLoop, backend_config={"estimated_cycles":"100"}
}

%inner (q: f32[8]) -> f32[8] {
  %g = f32[8] fusion(%q), kind=kLoop, backend_config={"estimated_cycles":"7"}
}

%unused (r: f32[8]) -> f32[8] {
  %h = f32[8] fusion(%r), kind=kLoop, backend_config={"estimated_cycles":"9999"}
}

ENTRY %main (a: f32[8]) -> f32[8] {
  %a = f32[8] parameter(0)
  %w = (s32[]) while(%a), body=%body, backend_config={"known_trip_count":{"n":"12"}}
  %c = f32[8] call(%a), to_apply=%inner
  %e = f32[8] fusion(%a), kind=kLoop, backend_config={"estimated_cycles":"1000"}
  ROOT %r = f32[8] all-reduce(%e), replica_groups={}
}
"""


@pytest.mark.parametrize(
    ("topology", "clock"), [("v5e:2x2", 1.5e9), ("v6e:4x4", 1.75e9)]
)
def test_cycles_count_as_often_as_they_run(topology, clock):
    assert tpu.predict_seconds(HLO, topology) == pytest.approx(
        (12 * 100 + 7 + 1000) / clock
    )


@pytest.mark.parametrize("topology", ["v4:2x2x1", "v5e", "v5e:", "v5litepod-8"])
def test_an_unknown_topology_is_named(topology):
    with pytest.raises(ValueError, match="topology '" + topology):
        tpu.make_topology_mesh(topology, (-1, 1))


def test_a_mesh_takes_other_devices():
    few = jax.devices()[:4]
    assert sharding.make_mesh((-1, 2), few).devices.shape == (2, 2)
    with pytest.raises(ValueError, match="does not cover 4 devices"):
        sharding.make_mesh((8, 1), few)
