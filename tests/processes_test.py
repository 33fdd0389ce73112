"""Two real processes with two devices each do what one process with four does.

The processes are programs of their own, connected by gloo; the reference runs in the
process of the tests, on four of its devices.
"""

import json
import re
import shutil

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

from rsclip_jax.main import run_stages
from rsclip_jax.records.outcomes import load_outcome
from rsclip_jax.records.results import read_results
from rsclip_jax.train import checkpoint, sharding, watchdog
from tests.helpers import alike, processes
from tests.helpers.pauses import Pauses
from tests.helpers.runs import few_scenes, tiny_config

pytestmark = pytest.mark.slow
STAGES = ("pretrain", "patch", "align", "evaluate")
CHANGES = """
config.variant = "toy"
config.eval_batch_size = 20
config.keep_embeddings = True
for stage in ("pretrain", "patch", "align"):
    config[stage].update(steps=4, checkpoint_every=2, log_every=1)
config.patch.update(alpha=0.5, supported_val=(), supported_test=())
config.pretrain.update(test=("miniature:test",), allow_other_data=True)
config.align.cache = "exact"
config.datasets = ("miniature:test",)
config.evaluate.probes = (("miniature:train", "miniature:val", "miniature:test"),)
config.evaluate.update(shots=(4,), shot_seeds=1)
"""


def config_of(stages=STAGES, changes=CHANGES):
    config = tiny_config(stages)
    with config.unlocked():
        exec(changes, {"config": config})  # the lines of the processes' config
    return config


def four_devices(shape=(-1, 1)) -> Mesh:
    devices = np.asarray(jax.devices()[:4])[:, None]
    return Mesh(devices, sharding.AXES, axis_types=(AxisType.Auto,) * 2)


def run_alone(workdir, config):
    """One process with four devices."""
    with (
        few_scenes(),
        processes.toy_variant(),
        processes.steady_probes(),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(sharding, "make_mesh", four_devices)
        run_stages(config, workdir)
    return workdir


def flags(folder, config):
    return f"--config={config}", f"--workdir={folder / 'run'}"


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return run_alone(tmp_path_factory.mktemp("alone") / "run", config_of())


@pytest.fixture(scope="module")
def killed(request, tmp_path_factory):
    """(folder, exit statuses, output) of two processes, one of which was killed."""
    folder = tmp_path_factory.mktemp("two")
    config = processes.write_config(folder / "config.py", CHANGES)
    second = folder / "run" / "pretrain" / "checkpoints" / "2"
    told, pauses = flags(folder, config), Pauses(folder / "pauses", 3)
    with processes.start(folder / "logs", *told, env=pauses.variables) as job:
        job.wait_until(lambda: pauses.reached(3) and second.is_dir())
        job.kill(1)
        pauses.let_go(3)
        request.getfixturevalue("alone")  # while the other waits for its peer
        statuses = job.wait(300)
        text = job.output(0)
    return folder, statuses, text


@pytest.fixture(scope="module")
def resumed(killed, tmp_path_factory):
    """The workdir after the kill: one process ends the stage, two run the others."""
    folder = tmp_path_factory.mktemp("again")
    shutil.copytree(killed[0] / "run", folder / "run")
    run_alone(folder / "run", config_of(("pretrain",)))
    config = killed[0] / "config.py"
    with processes.start(folder / "logs", *flags(folder, config)) as job:
        statuses = job.wait(500)
        assert statuses == [0, 0], job.text()
    return folder / "run"


def test_a_process_ends_when_the_other_is_killed_and_names_it(killed):
    folder, (status, lost), text = killed
    assert lost == -9
    assert status not in (0, None)
    assert "missing: process 1 (host " in text, text
    assert not (folder / "run" / "pretrain" / "params").exists()


def test_two_processes_report_what_one_reports(alone, resumed):
    ours, theirs = (read_results(w / "results.jsonl") for w in (resumed, alone))
    assert [alike.key_of(r) for r in ours] == [alike.key_of(r) for r in theirs]
    assert {r.stage for r in ours} == set(STAGES)
    for one, other in zip(ours, theirs, strict=True):
        assert one.n == other.n
        assert alike.as_number(one.value) == pytest.approx(
            alike.as_number(other.value), rel=1e-5, nan_ok=True
        ), (one, other)


def test_two_processes_keep_the_embeddings_that_one_keeps(alone, resumed):
    paths = sorted(p.relative_to(alone) for p in alone.glob("*/outcomes/*/*.npz"))
    assert len(paths) >= 3
    for path in paths:
        ours, theirs = (load_outcome(workdir / path) for workdir in (resumed, alone))
        assert ours.ids == theirs.ids
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        assert ours.z.keys() == theirs.z.keys()
        for key, z in theirs.z.items():
            np.testing.assert_allclose(
                ours.z[key], z, atol=1e-5, err_msg=f"{path} {key}"
            )


@pytest.mark.parametrize("stage", ["pretrain", "patch", "align"])
def test_two_processes_train_as_one_does(alone, resumed, stage):
    ours, theirs = (curve_of(w / stage) for w in (resumed, alone))
    assert ours.keys() == theirs.keys()
    assert list(ours["step"]) == [1, 2, 3, 4]
    for key, values in theirs.items():
        np.testing.assert_allclose(ours[key], values, rtol=1e-5, err_msg=key)


def curve_of(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    keys = rows[0].keys() - {"examples_per_second", "input_wait"}
    return {key: np.array([row[key] for row in rows]) for key in sorted(keys)}


@pytest.mark.parametrize("stage", ["pretrain", "patch", "align"])
def test_two_processes_make_the_weights_that_one_makes(alone, resumed, stage):
    with processes.toy_variant():
        (ours, meta), (theirs, other) = (
            checkpoint.load_product(w / stage) for w in (resumed, alone)
        )
    alike.assert_close(ours, theirs)
    assert (meta.steps, meta.alpha) == (other.steps, other.alpha)


def test_two_processes_continue_what_two_began(alone, killed, tmp_path):
    shutil.copytree(killed[0] / "run", tmp_path / "run")
    config = processes.write_config(
        tmp_path / "config.py", CHANGES, stages="('pretrain',)"
    )
    with processes.start(tmp_path / "logs", *flags(tmp_path, config)) as job:
        assert job.wait(300) == [0, 0], job.text()
    (ours, _), (theirs, _) = (
        checkpoint.load_product(w / "pretrain") for w in (tmp_path / "run", alone)
    )
    alike.assert_close(ours, theirs)
    assert list(curve_of(tmp_path / "run" / "pretrain")["step"]) == [1, 2, 3, 4]


def test_only_one_process_leaves_files(alone, resumed):
    def names(workdir):
        return {
            str(p.relative_to(workdir))
            for p in workdir.glob("*/*")
            if p.parent.name != "processes"  # the stacks of the job that was killed
        } | {p.name for p in workdir.iterdir() if p.name != "processes"}

    assert names(resumed) == names(alone)


# Four processes under the watchdog.


def four_steps(folder, *more):
    return processes.start(
        folder / "logs",
        f"--workdir={folder}",
        *more,
        processes=4,
        devices=1,
        module="tests.helpers.steps",
    )


def test_a_straggler_among_four_is_named_and_all_end(tmp_path):
    with four_steps(tmp_path, "--sleeper=2") as job:
        assert all(job.wait(300)), job.text()
    assert watchdog.EXIT_CODE in [p.returncode for p in job.processes]
    told = [i for i in range(4) if "behind: process 2 (host " in job.output(i)]
    assert told, job.text()
    for i in told:
        assert "steps, step 4" in job.output(i)
        stacks = (tmp_path / "processes" / f"{i}.stacks.txt").read_text()
        assert "steps.py" in stacks  # where the main thread is
        assert "watchdog.py" in stacks


def test_a_dead_peer_among_four_is_named_and_all_end(tmp_path):
    with four_steps(tmp_path) as job:
        job.wait_until(lambda: (tmp_path / "processes" / "2.json").exists())
        job.kill(2)
        statuses = job.wait(300)
    assert all(statuses), job.text()
    told = [job.output(i) for i in (0, 1, 3)]
    named = [set(re.findall(r"process (\d) \(host .*?\): ", text)) for text in told]
    assert all(names <= {"2"} for names in named), job.text()  # not who left for it
    assert {"2"} in named, job.text()


# Packing.


def test_two_processes_pack_what_one_packs(tmp_path):
    config = tmp_path / "config.py"
    config.write_text(
        "from configs import pack\n"
        "def get_config():\n"
        "    config = pack.get_config()\n"
        "    config.update(dataset='miniature', progress=False)\n"
        f"    config.pack.update(out={str(tmp_path / 'two')!r}, workers=1)\n"
        "    config.pack.splits = ('val',)\n"
        "    config.pack.shard_mb = 0.1\n"
        "    return config\n"
    )
    told = flags(tmp_path, config)
    with processes.start(tmp_path / "logs", *told, module="rsclip_jax.main") as job:
        assert job.wait(300) == [0, 0], job.text()
    scope: dict = {}
    exec(config.read_text(), scope)
    alone = scope["get_config"]()
    alone.pack.out = str(tmp_path / "one")
    run_stages(alone.lock(), tmp_path / "alone")
    ours, theirs = (files_of(tmp_path / name) for name in ("two", "one"))
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []


def files_of(folder):
    """{name: bytes} of a pack, without the notes of its making."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("progress.jsonl", ".lock")
    }


# What is refused before anything is written.


def test_processes_with_other_settings_are_refused_by_name(tmp_path):
    config = processes.write_config(tmp_path / "config.py", CHANGES)
    with processes.start(
        tmp_path / "logs",
        *flags(tmp_path, config),
        each=lambda i: [f"--config.seed={i}"],
    ) as job:
        assert all(job.wait(300)), job.text()
    assert "config.seed: 0 on process 0, 1 on process 1" in job.text()
    assert not (tmp_path / "run" / "config.json").exists()


def test_the_others_wait_for_what_the_first_decides(tmp_path):
    module = "tests.helpers.waits"
    with processes.start(tmp_path / "logs", module=module, devices=1) as job:
        assert job.wait() == [0, 0], job.text()
    said = ("ZeroDivisionError division by zero", "PeerError process 0: division by")
    for i, words in enumerate(said):
        assert "decided\n" in job.output(i)
        assert words in job.output(i)
