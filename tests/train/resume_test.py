"""Checkpoints of a training: what is kept, what is whole, and what comes back."""

import contextlib
import json
import math
import resource
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import grain
import jax
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from rsclip_jax.train import checkpoint, optim, resume, sharding
from rsclip_jax.train.stores import steps_in
from rsclip_jax.train_step import TrainState, make_state
from tests.helpers.batches import make_batches
from tests.helpers.damage import flip

META = {"stage": "toy", "sources": {"theta_0": {"digest": "a"}}}
TX = optim.with_ema(optax.adamw(0.1), 0.9)


def params() -> dict:
    return {"a": {"kernel": np.arange(8.0, dtype=np.float32).reshape(2, 4)}}


def state_at(step: int, mesh=None) -> TrainState:
    """A state whose every number depends on the step."""
    mesh = mesh or sharding.make_mesh()
    made = sharding.put_params(make_state(params(), TX), mesh)
    moved = jax.tree.map(lambda x: x + step, (made.params, made.opt_state))
    number = jax.device_put(np.int32(step), made.step.sharding)
    return TrainState(number, *moved)


def save_steps(folder: Path, steps=(4, 8, 12), losses=(), **kept) -> None:
    with resume.Saves(folder, **kept) as saves:
        for i, step in enumerate(steps):
            loss = losses[i] if losses else 1.0
            saves.save(state_at(step), {"next_index": step}, META, loss=loss)


def restored(folder: Path, meta=META) -> resume.Begun:
    with resume.Saves(folder) as saves:
        return saves.restore(state_at(0), meta)


def same(a, b) -> None:
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_state_comes_back_with_its_shardings_and_the_data_position(tmp_path):
    mesh = sharding.make_mesh((2, 4))
    state = state_at(3, mesh)
    batches = make_batches()
    next(batches)
    with resume.Saves(tmp_path / "c") as saves:
        saves.save(state, batches.get_state(), META, skipped=2)
        saves.save(state, batches.get_state(), {**META, "stage": "other"})  # no-op
    with resume.Saves(tmp_path / "c") as saves:
        begun = saves.restore(state_at(0, mesh), META)
    moved = make_batches()
    moved.set_state(begun.position)
    np.testing.assert_array_equal(next(moved)["x"], next(batches)["x"])
    same(begun.state, state)
    for a, b in zip(*map(jax.tree.leaves, (state, begun.state)), strict=True):
        assert a.sharding.is_equivalent_to(b.sharding, a.ndim)
    assert begun.skipped == 2
    meta = json.loads((tmp_path / "c" / "3" / "meta" / "metadata").read_text())
    assert meta["stage"] == "toy"
    assert meta["step"] == 3
    items = {p.name for p in (tmp_path / "c" / "3").iterdir() if p.is_dir()}
    assert items == {"params", "train", "data", "meta"}


def test_a_save_is_of_its_own_step_though_the_state_is_donated(tmp_path):
    """A save goes on in the background while the next steps take the state's memory."""
    big = {"w": np.zeros((500, 1000), np.float32)}
    state = sharding.put_params(make_state(big, optax.sgd(0.1)), sharding.make_mesh())
    advance = jax.jit(
        lambda s: TrainState(
            s.step + 1, jax.tree.map(lambda x: x + 1, s.params), s.opt_state
        ),
        donate_argnums=0,
    )
    with resume.Saves(tmp_path, keep=9) as saves:
        for step in range(1, 6):
            state = advance(state)
            saves.save(state, {}, META)
            assert int(advance(state).step) == step + 1  # takes the memory
            state = sharding.put_params(
                make_state({"w": big["w"] + step}, optax.sgd(0.1)), sharding.make_mesh()
            ).replace(step=jax.numpy.int32(step))
    for step in range(1, 6):
        found = checkpoint.read_tree(tmp_path / str(step) / "params")
        np.testing.assert_array_equal(found["w"], float(step))


@pytest.mark.parametrize(
    ("keep", "keep_best", "losses", "kept"),
    [
        (2, 0, (1.0, 2.0, 3.0, 4.0), [3, 4]),
        (1, 1, (1.0, 2.0, 3.0, 4.0), [1, 4]),
        (2, 2, (3.0, 1.0, math.nan, 4.0), [1, 2, 3, 4]),
        (1, 1, (math.nan, 1.0, math.nan, 4.0), [2, 4]),
        (1, 2, (math.nan, math.nan, math.nan, math.nan), [4]),
    ],
)
def test_the_newest_and_the_best_are_kept(tmp_path, keep, keep_best, losses, kept):
    wanted = {"keep": keep, "keep_best": keep_best}
    save_steps(tmp_path, (1, 2), losses[:2], **wanted)
    save_steps(tmp_path, (3, 4), losses[2:], **wanted)  # losses come from the files
    assert steps_in(tmp_path) == kept


def test_the_trained_params_are_read_without_a_warning(tmp_path, caplog):
    save_steps(tmp_path / "s" / "checkpoints")
    caplog.clear()
    same(checkpoint.load_trained(tmp_path / "s"), state_at(12).params)
    assert [r.message for r in caplog.records if r.levelname == "WARNING"] == []
    assert resume.begun_sources(tmp_path / "s") == META["sources"]


# Damage


def halve(folder: Path) -> None:
    largest = max(folder.rglob("*"), key=lambda p: p.stat().st_size * p.is_file())
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])


def clear(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


VISIBLE = {
    "halved params": lambda f: halve(f / "params" / "d"),
    "halved state": lambda f: halve(f / "train" / "d"),
    "halved meta": lambda f: halve(f / "meta"),
    "halved data": lambda f: (f / "data" / "metadata").write_text('{"next'),
    "empty": clear,
    "lost params": lambda f: shutil.rmtree(f / "params"),
    "lost data": lambda f: shutil.rmtree(f / "data"),
    "lost meta": lambda f: shutil.rmtree(f / "meta"),
    "lost files of an item": lambda f: clear(f / "train"),
    "renamed to a later step": lambda f: f.rename(f.with_name("13")),
    "other parameters": lambda f: (
        shutil.rmtree(f / "params"),
        shutil.copytree(f.with_name("8") / "params", f / "params"),
    ),
    "other data position": lambda f: (
        shutil.rmtree(f / "data"),
        shutil.copytree(f.with_name("8") / "data", f / "data"),
    ),
}


@pytest.mark.parametrize("how", VISIBLE)
def test_the_newest_whole_checkpoint_is_used_and_told(tmp_path, capsys, how):
    save_steps(tmp_path / "c", keep=3)
    VISIBLE[how](tmp_path / "c" / "12")
    begun = restored(tmp_path / "c")
    same(begun.state, state_at(8))
    assert begun.position == {"next_index": 8}
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert "continues from step 8, the newest whole one" in text
    assert f"moved to {tmp_path}/damaged" in text
    assert len(list((tmp_path / "damaged").iterdir())) == 1
    save_steps(tmp_path / "c", (12,), keep=3)  # its place is free
    same(restored(tmp_path / "c").state, state_at(12))


def test_a_step_under_another_kind_of_name_is_left_alone(tmp_path):
    save_steps(tmp_path / "c", keep=3)
    (tmp_path / "c" / "12").rename(tmp_path / "c" / "12_copy")
    same(restored(tmp_path / "c").state, state_at(8))
    assert (tmp_path / "c" / "12_copy").is_dir()


def test_without_a_whole_one_all_that_was_tried_is_listed(tmp_path):
    save_steps(tmp_path / "c", keep=3)
    halve(tmp_path / "c" / "4" / "params" / "d")
    shutil.rmtree(tmp_path / "c" / "8" / "train")
    clear(tmp_path / "c" / "12")
    with pytest.raises(ValueError, match="no checkpoint that can be used") as error:
        restored(tmp_path / "c")
    lines = str(error.value).splitlines()
    assert [line.split(":")[0].strip() for line in lines[1:4]] == [
        "step 12",
        "step 8",
        "step 4",
    ]
    assert "train is missing" in lines[2]
    assert "remove that folder to start" in lines[-1]
    assert steps_in(tmp_path / "c") == [4, 8, 12]  # nothing is removed


SLOW = [pytest.param(seed, marks=pytest.mark.slow) for seed in range(12, 112)]


@pytest.mark.parametrize("seed", [*range(12), *SLOW])
def test_a_flipped_bit_never_gives_another_state(tmp_path, capsys, seed):
    save_steps(tmp_path / "c", (8, 12))
    where = flip(tmp_path / "c" / "12", seed)
    begun = restored(tmp_path / "c")
    told = capsys.readouterr().err
    step = 8 if told else 12  # bits that no value depends on may change unseen
    same(begun.state, state_at(step))
    assert begun.position == {"next_index": step}
    assert int(begun.state.step) == step, where


def test_a_changed_value_is_seen_by_its_digest_alone(tmp_path, capsys):
    """The files are whole; only the digest can tell that they hold other values."""
    save_steps(tmp_path / "c", (8, 12))
    item = tmp_path / "c" / "12" / "params"
    tree = jax.tree.map(np.copy, checkpoint.read_tree(item))
    tree["a"]["kernel"][1, 3] = np.nextafter(tree["a"]["kernel"][1, 3], np.float32(99))
    shutil.rmtree(item)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(item, tree)
    same(restored(tmp_path / "c").state, state_at(8))
    assert "step 12: params differs from its digest" in capsys.readouterr().err


# Other versions, other sources


def test_a_checkpoint_of_an_older_version_is_restored_with_a_warning(tmp_path, capsys):
    """Its data item was grain's own, its meta without digests."""
    state, batches = state_at(4), make_batches()
    next(batches)
    options = ocp.CheckpointManagerOptions(enable_async_checkpointing=False)
    with ocp.CheckpointManager(tmp_path / "c", options=options) as manager:
        items = ocp.args.Composite(
            params=ocp.args.StandardSave(state.params),
            train=ocp.args.StandardSave({"opt_state": state.opt_state}),
            data=grain.checkpoint.CheckpointSave(batches),
            meta=ocp.args.JsonSave({**META, "step": 4}),
        )
        manager.save(4, args=items)
    begun = restored(tmp_path / "c")
    same(begun.state, state)
    assert begun.position == batches.get_state()
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "c/4 has no digests, so it is used unverified" in told


def test_other_sources_are_named(tmp_path):
    save_steps(tmp_path / "c", (4,))
    other = {**META, "sources": {"theta_0": {"digest": "b"}, "data": {"x": "1"}}}
    with pytest.raises(ValueError, match=r"(?s)step 4 .*data x: None then.*'a' then"):
        restored(tmp_path / "c", other)


def test_another_optimizer_is_named(tmp_path):
    save_steps(tmp_path / "c", (4,))
    plain = make_state(params(), optax.adamw(0.1))
    state = sharding.put_params(plain, sharding.make_mesh())
    named = r"c/4 does not fit this run: .*opt_state/inner/"
    with resume.Saves(tmp_path / "c") as saves, pytest.raises(ValueError, match=named):
        saves.restore(state, META)


def test_digests_do_not_depend_on_containers_devices_or_layout(tmp_path):
    tree = state_at(5, sharding.make_mesh((2, 4)))
    on_host = jax.tree.map(np.asarray, {"opt_state": tree.opt_state})
    whole = resume.tree_digest({"opt_state": tree.opt_state})
    assert resume.tree_digest(on_host) == whole
    turned = jax.tree.map(lambda x: np.asfortranarray(x) if x.ndim else x, on_host)
    assert resume.tree_digest(turned) == whole
    save_steps(tmp_path / "c", (5,))
    stored = checkpoint.read_tree(tmp_path / "c" / "5" / "train")
    assert resume.tree_digest(stored) == whole


@contextlib.contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """Writes beyond this size of a file fail, as on a disk without more room."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_told_in_plain_words_and_nothing_is_lost(tmp_path):
    noise = np.random.default_rng(0).normal(size=2_000_000).astype(np.float32)
    large = sharding.put_params(
        make_state({"w": noise}, optax.sgd(0.1)), sharding.make_mesh()
    )

    def save(step: int) -> None:
        number = jax.device_put(np.int32(step), large.step.sharding)
        with resume.Saves(tmp_path / "c") as saves:
            saves.save(large.replace(step=number), {}, META)

    save(4)
    told = (
        r"c: a checkpoint could not be written \(the disk is full, and it takes 8 MB\)"
    )
    with full_disk(2**20), pytest.raises(OSError, match=told + "; kept there: step 4$"):
        save(8)
    save(8)  # there is room again
    assert steps_in(tmp_path / "c") == [4, 8]


def test_an_error_of_a_save_in_the_background_is_raised_at_a_later_step(tmp_path):
    noise = np.random.default_rng(0).normal(size=2_000_000).astype(np.float32)
    large = sharding.put_params(
        make_state({"w": noise}, optax.sgd(0.1)), sharding.make_mesh()
    )
    with full_disk(2**20), pytest.raises(OSError, match="the disk is full"):
        save_and_go_on(tmp_path / "c", large)


def save_and_go_on(folder: Path, state: TrainState) -> None:
    """Steps of a training after a save, none of which waits for it."""
    until = time.monotonic() + 60
    with resume.Saves(folder) as saves:
        saves.save(state, {}, META)
        while time.monotonic() < until:
            saves.check()
            time.sleep(0.01)
        raise AssertionError("no step has raised it")


def test_a_training_keeps_the_precision_that_it_began_with(tmp_path):
    def meta(precision):
        return {**META, "sources": {**META["sources"], "compute": precision}}

    narrow, wide = ({"precision": p} for p in ("bfloat16", "float32"))
    save_steps(tmp_path / "old")  # of a version that did not say it, and had float32
    assert restored(tmp_path / "old", meta(wide))
    with resume.Saves(tmp_path / "new") as saves:
        saves.save(state_at(4), {}, meta(narrow))
    assert restored(tmp_path / "new", meta(narrow))
    for folder, now in (("old", narrow), ("new", wide)):
        with pytest.raises(ValueError, match=r"compute precision: 'b?float"):
            restored(tmp_path / folder, meta(now))
