"""python -m rsclip_jax.main --config=FILE [--workdir=DIR] [--config.key=value ...]

Runs config.stages in order in one workdir; a stage whose product is there is skipped.
"""

import difflib
import json
import os
import re
import runpy
import shutil
import sys
import time
import traceback
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file("config", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "default: runs/<config's name>")
# stage -> the one that it runs several times, by its settings
_PART = {"ablate": "align", "survey": "evaluate"}
# These may change between two runs in one workdir: no number depends on them, or (the
# data and what of it was left out, by its digests) each number says so itself.
_FREE = (
    "overwrite",
    "stages",
    "progress",
    "data.threads",
    "data.on_error",  # the way on for a training that met a bad file
    "data_root",
    "keep_embeddings",
    "align.cache",  # the same features to rounding
    "align.cache_dir",
    "pretrain.allow_shared",  # they refuse a run, or not
    "pretrain.allow_other_data",
    "patch.allow_shared",
    "patch.allow_other_data",
    "align.allow_shared",
    "align.allow_other_data",
    "ablate.sweep",  # a longer one goes on from a shorter one
    "models",  # likewise
    "published",
    "dry_run",  # in a folder of its own
    "dry_records",
)
_STAGES = (
    "pretrain",
    "patch",
    "align",
    "ablate",
    "evaluate",
    "survey",
    "export",
    "inspect",
    "compare",
)  # their folders in a workdir


def main(argv: list[str]) -> None:
    """Runs the stages; a user's error is one message, its traceback goes to a file."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments {argv[1:]}")
    if _CONFIG.value is None:
        raise app.UsageError("give a config, such as --config=configs/align_sar.py")
    from rsclip_jax.data.bad_records import in_words
    from rsclip_jax.train.loop import Interrupted

    logging.set_verbosity(logging.WARNING)  # Orbax tells of every file it writes
    workdir = Path(_WORKDIR.value or default_workdir())
    try:
        run_stages(_CONFIG.value, workdir)
    except Interrupted as error:
        print(error, file=sys.stderr)
        sys.exit(error.code)
    except KeyboardInterrupt:
        text = "\nstopped; the same command goes on from the last save, if there is one"
        print(text, file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # who read our output has gone, as in "| head"
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (ValueError, OSError, ArithmeticError) as error:
        text = f"error: {in_words(error)}\n{keep_traceback(workdir)}"
        print(text.rstrip(), file=sys.stderr)
        sys.exit(1)


def keep_traceback(workdir: Path) -> str:
    """Writes the traceback into a workdir of ours; where it lies, in words."""
    if not (workdir / "config.json").exists() and _others(workdir):
        return ""  # somebody else's folder
    trace = workdir / "error.txt"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        trace.write_text(traceback.format_exc())
    except OSError:  # the workdir itself is what is wrong
        return ""
    return f"(traceback: {trace})"


def run_stages(config, workdir: Path) -> None:
    """Checks the workdir, runs each stage that is not done, prints the table."""
    import jax

    from rsclip_jax.data.bad_records import count_skipped
    from rsclip_jax.io.files import write_json
    from rsclip_jax.records import results
    from rsclip_jax.stages.shared.own_data import fill_in
    from rsclip_jax.stages.shared.run import Run
    from rsclip_jax.stages.shared.training import log_changed, named
    from rsclip_jax.train.sharding import make_mesh

    stages = stage_functions(config.stages)
    config, filled = fill_in(config)
    with named("config."):
        mesh = make_mesh(tuple(config.mesh))
    run = Run(config, workdir, mesh)
    anew = check_workdir(config, workdir)
    for name, (check, _) in stages.items():
        if anew or not is_done(run, name):
            check(run)
    if jax.process_index() == 0:
        if anew:  # only now that nothing is wrong with the new settings
            empty(workdir)
        write_json(workdir / "config.json", as_json(config))
        (workdir / "error.txt").unlink(missing_ok=True)
    run.log(f"{workdir}: {', '.join(stages)} on {jax.device_count()} device(s)")
    for line in filled:
        run.log(line)
    if cut := results.count_cut(run.results):
        run.log(f"{run.results}: {cut} line(s) cut short, which are left out")
    for name, (_, run_stage) in stages.items():
        if is_done(run, name):
            run.log(f"{name}: done before, skipped")
            log_changed(run, name)
            continue
        run.log(f"{name} ...")
        started = time.perf_counter()
        if jax.process_index() == 0:
            # of an earlier time; a kill from here on leaves a stage that is not done
            (workdir / name / "meta.json").unlink(missing_ok=True)
            results.start_stage(run.results, name)
        run_stage(run)
        text = f"{name}: done in {time.perf_counter() - started:.0f} s"
        if count := count_skipped(listed := run.skipped(name)):
            text += f"; {count} unreadable record(s) left out, listed in {listed}"
        run.log(text)
    close(run)


def stage_functions(names: tuple[str, ...]) -> dict:
    """{name: (check, run)} in order; ValueError listing the stages for another name."""
    from rsclip_jax.stages import (
        ablate,
        compare,
        export,
        inspect,
        pack,
        pretrain,
        survey,
    )
    from rsclip_jax.stages.align import stage as align
    from rsclip_jax.stages.evaluate import stage as evaluate
    from rsclip_jax.stages.patch import stage as patch

    known = {
        "pretrain": (pretrain.check_pretrain, pretrain.run_pretrain),
        "patch": (patch.check_patch, patch.run_patch),
        "align": (align.check_align, align.run_align),
        "ablate": (ablate.check_ablate, ablate.run_ablate),
        "evaluate": (evaluate.check_evaluate, evaluate.run_evaluate),
        "survey": (survey.check_survey, survey.run_survey),
        "export": (export.check_export, export.run_export),
        "inspect": (inspect.check_inspect, inspect.run_inspect),
        "compare": (compare.check_compare, compare.run_compare),
        "pack": (pack.check_pack, pack.run_pack),
    }
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.0)[0]
            raise ValueError(
                f"config.stages names {name!r}: did you mean {near!r}? The stages are"
                f" {', '.join(known)}"
            )
    return {name: known[name] for name in names}


def is_done(run, stage: str) -> bool:
    """Whether the stage's product is there; evaluate's, of present products and data.

    An inspection or a comparison is never done: the files may have changed since.
    """
    from rsclip_jax.stages.ablate import is_ablated
    from rsclip_jax.stages.evaluate.stage import is_evaluated
    from rsclip_jax.stages.export import is_exported
    from rsclip_jax.stages.survey import is_surveyed
    from rsclip_jax.train.checkpoint import has_product

    if stage == "ablate":
        return is_ablated(run)
    if stage == "evaluate":
        return is_evaluated(run)
    if stage == "survey":
        return is_surveyed(run)
    if stage == "export":
        return is_exported(run.workdir)
    return has_product(run.workdir / stage)


def check_workdir(config, workdir: Path) -> bool:
    """Refuses a workdir of another config; with config.overwrite, True: empty it."""
    from rsclip_jax.io.files import read_json

    stored = workdir / "config.json"
    if not stored.exists():
        if _others(workdir):
            raise ValueError(
                f"{workdir} is not empty and holds no config.json, so no run of ours"
                " made it: choose another --workdir"
            )
        return False
    made = [s for s in _STAGES if _is_begun(workdir, s)]
    if set(made) <= {"inspect", "compare"}:  # one look does not bind the next
        return False
    changed = differences(read_json(stored), as_json(config))
    used = {*made, *(_PART[s] for s in made if s in _PART)}
    idle = [s for s in _STAGES if s not in used]
    changed = [x for x in changed if not x.startswith(sum(map(_of, idle), ()))]
    if changed and not config.overwrite:
        raise ValueError(
            f"{workdir} was made with another config:\n  "
            + "\n  ".join(changed)
            + "\nchoose another --workdir, or --config.overwrite=True to throw its"
            " results away"
        )
    return bool(changed)


def _is_begun(workdir: Path, stage: str) -> bool:
    """Whether a workdir holds what a stage made by the settings there.

    An evaluation that did not end starts again, and so does not bind.
    """
    folder = workdir / stage
    return (folder / "meta.json" if stage == "evaluate" else folder).exists()


def _of(stage: str) -> tuple[str, ...]:
    """How the lines of `differences` begin that are about a stage's own settings."""
    own = (f"config.{stage}.", f"config.{stage}:")  # all of them, where they are new
    return (*own, "config.datasets") if stage == "evaluate" else own


def as_json(config) -> dict:
    """The config as JSON gives it back: tuples are lists there."""
    return json.loads(json.dumps(config.to_dict()))


def _others(workdir: Path) -> bool:
    """Whether files lie there that a failed start did not leave."""
    return workdir.is_dir() and any(p.name != "error.txt" for p in workdir.iterdir())


def empty(workdir: Path) -> None:
    """Removes what a run makes, and nothing else that may lie there."""
    for name in _STAGES:
        shutil.rmtree(workdir / name, ignore_errors=True)
    for name in ("results.jsonl", "report.html"):
        (workdir / name).unlink(missing_ok=True)


def differences(old: dict, new: dict, prefix: str = "") -> list[str]:
    """A line, "config.patch.lr: 0.1 there, 0.2 here", for each setting that counts."""
    lines = []
    for key in sorted(old.keys() | new.keys()):
        name = f"{prefix}{key}"
        a, b = old.get(key), new.get(key)
        if name in _FREE or a == b:
            continue
        if key not in old and not b:  # a newer setting, which is off
            continue
        if isinstance(a, dict) and isinstance(b, dict):
            lines += differences(a, b, f"{name}.")
        else:
            lines.append(f"config.{name}: {a!r} there, {b!r} here")
    return lines


def close(run) -> None:
    """The closing table and the report, and where everything lies."""
    import jax

    from rsclip_jax.data.specs import as_specs, reported
    from rsclip_jax.records.results import read_results
    from rsclip_jax.report.table import closing_records, describe_alpha, format_table
    from rsclip_jax.train.checkpoint import has_product, load_meta

    patch = run.config.get("patch", {})
    tests = [patch.get("test", ""), patch.get("supported_test", ())]
    shown = [reported(spec) for one in tests for spec in as_specs(one)]
    records = closing_records(read_results(run.results), shown)
    if not records:  # an export measures nothing
        return
    patched = run.workdir / "patch"
    meta = load_meta(patched) if has_product(patched) else None
    run.log("\n" + format_table(records, meta.alpha if meta else None))
    if meta:
        run.log(f"(patch: after = {describe_alpha(meta)})")
        if meta.alpha_note:
            run.log(f"warning: {meta.alpha_note}")
    run.log("")
    pictures = sorted(str(p) for p in run.workdir.glob("*/*.png"))
    run.log(f"every number: {run.results}\npictures: {', '.join(pictures) or 'none'}")
    if jax.process_index() == 0 and (path := try_report(run)):
        run.log(f"report: {path}")


def try_report(run) -> Path | None:
    """Writes report.html, or says why not: the run is done, whatever comes of it."""
    from rsclip_jax.report.page import write_report

    try:
        return write_report(run.workdir, run.log)
    except Exception as error:
        run.log(f"report.html: not written: {type(error).__name__}: {error}")
        return None


def default_workdir() -> str:
    """runs/<config file's stem>[-<variant>]."""
    path, _, variant = config_flags.get_config_filename(
        flags.FLAGS["config"]
    ).partition(":")
    return f"runs/{Path(path).stem}" + (f"-{variant}" if variant else "")


def parse_flags(argv: list[str]) -> list[str]:
    """absl's parsing, the config loaded; a mistake is one line on stderr and exit 2."""
    argv[:] = name_dataset(argv)  # in place: ml_collections reads sys.argv, which it is
    try:
        rest = flags.FLAGS(argv)
        if _CONFIG.value is not None:
            _CONFIG.value.keys()  # a file that could not be read says so only now
        return rest
    except (flags.Error, LookupError, AttributeError, OSError) as error:
        print(f"error: {explain(str(error), argv)}", file=sys.stderr)
    sys.exit(2)


def name_dataset(argv: list[str]) -> list[str]:
    """The arguments with --config.data=mine.toml spelled as --config.data.dataset."""
    return [re.sub(r"^(--?config\.data)(?==|$)", r"\1.dataset", arg) for arg in argv]


def explain(text: str, argv: list[str]) -> str:
    """ml_collections' message in words of the command line."""
    if text.startswith("flag --config.") and "Traceback" not in text:
        return text  # a value of the wrong type
    if "Traceback" in text:  # the config file's own error, at the end
        return text.strip().splitlines()[-1]
    missing = re.search(r"No such file or directory: (\S+)", text)
    if missing:
        return f"there is no config file {missing[1]}"
    return mistyped_setting(argv) or text.strip()


def mistyped_setting(argv: list[str]) -> str:
    """The first --config.a.b that the config file does not have; "" if all are there.

    With the nearest of the settings there, where one is near, and all of them.
    """
    lines = "\n".join(argv)
    file = re.search(r"^--?config[=\n](.+)", lines, re.MULTILINE)
    path, _, size = (file[1] if file else "").partition(":")
    if not path:
        return ""
    get_config = runpy.run_path(path)["get_config"]
    config = get_config(size) if size else get_config()
    for name in re.findall(r"^--?(config\.[\w.]+)", lines, re.MULTILINE):
        section = config
        for part in name.split(".")[1:]:
            keys = list(section.keys()) if hasattr(section, "keys") else []
            if part not in keys:
                near = difflib.get_close_matches(part, keys, n=1)
                hint = f"did you mean {near[0]!r}? " if near else ""
                listed = ", ".join(keys) or "no settings"
                return f"{name} is not a setting: {hint}There are {listed}"
            section = section[part]
    return ""


if __name__ == "__main__":
    try:
        app.run(main, flags_parser=parse_flags)
    except KeyboardInterrupt:  # before the stages began
        sys.exit(130)
