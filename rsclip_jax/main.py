"""python -m rsclip_jax.main --config=FILE [--workdir=DIR] [--config.key=value ...]

Runs config.stages in order in one workdir; finished stages are skipped. FILE may be the
name of a shipped config, such as patch, or a workdir's config.json.
"""

import contextlib
import difflib
import functools
import itertools
import os
import re
import runpy
import sys
import time
import traceback
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from rsclip_jax.io.paths import as_path, is_remote
from rsclip_jax.train import host_memory
from rsclip_jax.version import __version__

_CONFIG = config_flags.DEFINE_config_file("config", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "default: runs/<config's name>")
_COORDINATOR = flags.DEFINE_string(
    "coordinator",
    "",
    "HOST:PORT of process 0, where no cluster is detected (Slurm, Open MPI, Kubernetes,"
    " Cloud TPU); with --processes and --process",
)
_PROCESSES = flags.DEFINE_integer(
    "processes",
    0,
    "number of processes of the job; 1 alone: run alone, without detecting a cluster",
)
_PROCESS = flags.DEFINE_integer("process", -1, "number of this process, from 0")
_SAVED = Path(__file__).parent / "stages" / "shared" / "saved_config.py"


def main(argv: list[str]) -> None:
    """Runs the stages; an error prints one message, its traceback goes to a file."""
    if len(argv) > 1:
        raise app.UsageError(
            f"unknown arguments {argv[1:]}; a setting is written --config.NAME=VALUE"
        )
    if _CONFIG.value is None:
        raise app.UsageError("give a config, such as --config=configs/align_sar.py")
    import jax

    from rsclip_jax.stages.shared.messages import name_settings
    from rsclip_jax.train import compile_cache, processes

    jax.config.update("jax_default_matmul_precision", "highest")  # of all metrics
    quiet_libraries()
    kept = _CONFIG.value.get("compile_cache", compile_cache.AUTO)
    try:  # nothing is written to the workdir before a job's processes have met
        for name, value in compile_cache.cache_options(kept).items():
            jax.config.update(name, value)
        processes.initialize(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
    except ValueError as error:
        print(f"error: {name_settings(str(error))}", file=sys.stderr)
        sys.exit(1)
    if code := run_to_end(_CONFIG.value, as_path(_WORKDIR.value or default_workdir())):
        processes.leave(code)


def quiet_libraries() -> None:
    """Orbax logs every file that it writes; it and gcsfs the trace of each error."""
    logging.set_verbosity(logging.FATAL)


def run_to_end(config, workdir: Path) -> int:
    """Runs the stages; returns the exit status, after one message for an error."""
    from rsclip_jax.data.bad_records import error_text
    from rsclip_jax.io.files import is_full
    from rsclip_jax.io.run_lock import WorkdirHeld
    from rsclip_jax.io.store_errors import StoreFailed, naming_store
    from rsclip_jax.stages.shared.messages import name_settings
    from rsclip_jax.stages.shared.workdir import keep_traceback
    from rsclip_jax.train import processes, watchdog
    from rsclip_jax.train.stopping import Interrupted

    try:
        with naming_store(find_remote(config, workdir)):
            run_stages(config, workdir)
    except Interrupted as error:
        print(error, file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        text = "\nstopped; the same command continues from the last checkpoint, if any"
        print(text, file=sys.stderr)
        return 130
    except BrokenPipeError:  # the output's reader has exited, as in "| head"
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except processes.PeerError:
        return 1  # the process that failed says why
    except WorkdirHeld as error:  # nothing is written into the other's workdir
        print(f"error: {error}", file=sys.stderr)
        return 1
    except StoreFailed as error:  # nor into a store that does not answer
        print(f"error: {processes.name_self()}{error}", file=sys.stderr)
        return 1
    except (ValueError, OSError, ArithmeticError, MemoryError) as error:
        text = f"error: {processes.name_self()}{name_settings(error_text(error))}"
        if is_full(error):
            text += "; free some space, and run the same command again to continue"
        if processes.is_first() and not config.plan:
            text += f"\n{keep_traceback(workdir)}"
        print(text.rstrip(), file=sys.stderr)
        return 1
    except Exception:
        if processes.count() == 1:
            raise
        # not raised: at a usual exit, JAX would wait for processes that may be gone
        lost = watchdog.describe_peers(workdir)
        text = f"error: {processes.name_self()}{lost}\n{traceback.format_exc()}"
        print(text, file=sys.stderr)
        return 1
    return 0


def find_remote(config, workdir: Path) -> Path:
    """The workdir, or if it is local, the first setting's path in an object store."""
    reference = config.get("evaluate", {}).get("reference", "")
    named = (workdir, config.get("init", ""), reference, *config.get("runs", ()))
    return next((as_path(path) for path in named if is_remote(path)), workdir)


def run_stages(config, workdir: Path) -> None:
    """Holds the workdir while its stages run, so that no other run writes there."""
    from rsclip_jax.io.run_lock import hold
    from rsclip_jax.stages.shared.workdir import check_folder
    from rsclip_jax.train import processes, stopping

    if config.plan:
        plan(config, workdir)
        return
    if is_remote(workdir) and processes.is_first():  # which may take minutes
        print(f"{workdir}: reaching the object store ...", flush=True)
    check_folder(workdir)
    with stopping.at_once("outside the stages"), contextlib.ExitStack() as stack:
        held = hold(workdir, processes=processes.count())
        processes.first_waits(lambda: stack.enter_context(held))
        run_held(config, workdir)


def plan(config, workdir: Path) -> None:
    """Prints what the stages will need and take; writes nothing."""
    from rsclip_jax.stages.registry import check_sections, find_stages
    from rsclip_jax.stages.shared.dataset_settings import fill_in
    from rsclip_jax.stages.shared.plan import plan_stages
    from rsclip_jax.stages.shared.run import Run
    from rsclip_jax.train.sharding import make_mesh

    stages = find_stages(config.stages)
    check_sections(config, stages)
    config, _ = fill_in(config)
    plan_stages(Run(config, workdir, make_mesh(tuple(config.mesh))), stages)


def run_held(config, workdir: Path) -> None:
    """Checks the workdir and all stages, runs unfinished ones, writes the report."""
    from rsclip_jax.stages.registry import STAGES, check_sections, find_stages
    from rsclip_jax.stages.shared.alike import (
        check_alike,
        check_data_alike,
        check_folders_shared,
        check_shared,
    )
    from rsclip_jax.stages.shared.dataset_settings import fill_in
    from rsclip_jax.stages.shared.messages import name_settings
    from rsclip_jax.stages.shared.run import Run
    from rsclip_jax.stages.shared.workdir import begin, check_workdir, empty
    from rsclip_jax.train import processes, watchdog
    from rsclip_jax.train.sharding import connect, make_mesh

    stages = find_stages(config.stages)
    check_sections(config, stages)
    config, filled = fill_in(config)
    check_alike(config)
    run = Run(config, workdir, make_mesh(tuple(config.mesh)))
    connect(run.mesh)
    start_over = processes.first_decides(lambda: check_workdir(config, workdir, STAGES))
    todo = processes.first_decides(
        lambda: [start_over or not stage.is_done(run) for stage in stages]
    )
    with processes.together():
        for stage in itertools.compress(stages, todo):
            stage.check(run)
    check_data_alike(run)
    if processes.is_first():
        if start_over:  # only after all settings have passed their checks
            empty(workdir, STAGES)
        begin(config, workdir)
    check_shared(workdir)
    check_folders_shared(config, [s.name for s in itertools.compress(stages, todo)])
    minutes = config.get("watchdog_minutes", 0)
    with watchdog.watching(workdir, minutes, reword=name_settings):
        run_all(run, stages, filled)


def run_all(run, stages, filled) -> None:
    """Runs the stages, then writes the report. filled: lines to log first."""
    from rsclip_jax.records import results
    from rsclip_jax.stages.shared.closing import close
    from rsclip_jax.train import processes

    names = ", ".join(stage.name for stage in stages)
    run.log(f"{run.workdir}: {names} on {describe_devices()}")
    for line in filled:
        run.log(line)
    if processes.is_first() and (cut := results.count_cut(run.results)):
        run.log(f"{run.results}: skipping {cut} incomplete line(s)")
    for stage in stages:
        run_stage(run, stage)
    if processes.is_first():
        close(run)
    processes.wait_for_all("the end of the run")


def describe_devices() -> str:
    """The number of devices and, if there are several, of processes."""
    import jax

    from rsclip_jax.train import processes

    text = f"{jax.device_count()} device(s)"
    several = processes.count() > 1
    return f"{text} of {processes.count()} processes" if several else text


def run_stage(run, stage) -> None:
    """Runs one stage, unless it is done."""
    from rsclip_jax.data.bad_records import count_skipped
    from rsclip_jax.records import lost, results
    from rsclip_jax.stages.shared.memory_advice import advised
    from rsclip_jax.stages.shared.training import log_changed
    from rsclip_jax.train import processes, stopping

    if processes.first_decides(lambda: stage.is_done(run)):
        run.log(f"{stage.name}: already done, skipped")
        if processes.is_first():
            log_changed(run, stage.name)
            if text := lost.find_lost(run.workdir, stage.name):
                run.log(f"warning: {text}")
        return
    run.log(f"{stage.name} ...")
    started = time.perf_counter()
    if processes.is_first() and not stage.resumes:
        # without meta.json, a stage that is killed from here on counts as unfinished
        (run.workdir / stage.name / "meta.json").unlink(missing_ok=True)
        results.start_stage(run.results, stage.name)
    with advised(run, stage.name), stopping.at_once(f"in stage {stage.name}"):
        stage.run(run)
    if processes.is_first():
        lost.note_results(run.workdir, stage.name)
    processes.wait_for_all(f"the end of {stage.name}")
    text = f"{stage.name}: done in {time.perf_counter() - started:.0f} s"
    if count := count_skipped(listed := run.skipped(stage.name)):
        text += f"; {count} unreadable record(s) left out, listed in {listed}"
    run.log(text)


def default_workdir() -> str:
    """runs/<config's stem>[-<variant>], or runs/<folder's name> for a config.json."""
    path, _, variant = config_flags.get_config_filename(
        flags.FLAGS["config"]
    ).partition(":")
    if Path(path) == _SAVED:
        return f"runs/{as_path(variant).resolve().parent.name}"
    return f"runs/{Path(path).stem}" + (f"-{variant}" if variant else "")


def parse_flags(argv: list[str]) -> list[str]:
    """Parses flags and loads the config; an error is one line on stderr and exit 2."""
    from rsclip_jax.stages.shared.shipped_configs import find_shipped

    if "--version" in argv[1:]:
        print(f"rsclip-jax {__version__}")
        sys.exit(0)
    quiet_libraries()  # a config may lie in an object store
    argv[:] = name_dataset(argv)  # in place, because argv is sys.argv, and
    # ml_collections reads sys.argv
    argv = read_saved(find_shipped(argv))
    name, _ = config_file(argv)
    path = Path(name)
    try:
        if name and path.exists() and not (path.is_file() and path.suffix == ".py"):
            raise flags.Error(
                f"--config={path} is not a config: give a Python file, the name of a"
                " shipped config, or the config.json of a workdir"
            )
        rest = flags.FLAGS(argv)
        if _CONFIG.value is not None:
            _CONFIG.value.keys()  # raises for a file that could not be read
            check_once(_CONFIG.value, argv)
        as_path(_WORKDIR.value or "")
        return rest
    except (flags.Error, LookupError, AttributeError, OSError, ValueError) as error:
        print(f"error: {explain(str(error), argv)}", file=sys.stderr)
    sys.exit(2)


def check_once(config, argv: list[str]) -> None:
    """Raises flags.Error for a setting that takes several values and is given twice.

    ml_collections would join the values of some; of other settings the last counts.
    """
    given: dict[str, list[str]] = {}
    for flag, value in itertools.zip_longest(argv[1:], argv[2:], fillvalue=""):
        if found := re.fullmatch(r"--?config\.([\w.]+)(=.*)?", flag, re.DOTALL):
            given.setdefault(found[1], []).append((found[2] or f"={value}")[1:])
    for name, values in given.items():
        *sections, key = name.split(".")
        section = functools.reduce(lambda x, part: x[part], sections, config)
        if len(values) > 1 and section.get_type(key) in (tuple, object):
            shown = ", ".join(f"'{x}'" for x in values)
            raise flags.Error(
                f"--config.{name} is given {len(values)} times, as {shown}: give it"
                f" once, and several values as a tuple: --config.{name}=\"('a','b')\""
            )


def name_dataset(argv: list[str]) -> list[str]:
    """Replaces --config.data=mine.toml by --config.data.dataset=mine.toml."""
    return [re.sub(r"^(--?config\.data)(?==|$)", r"\1.dataset", arg) for arg in argv]


def read_saved(argv: list[str]) -> list[str]:
    """Replaces --config=FILE.json by the config file that reads it."""
    flag = r"(?<![^\0])(--?config[=\0])([^\0]+\.json)(?![^\0])"
    return re.sub(flag, rf"\1{_SAVED}:\2", "\0".join(argv)).split("\0")


def explain(text: str, argv: list[str]) -> str:
    """Rewrites ml_collections' message for the command line."""
    if text.startswith(("flag --config.", "--config")) and "Traceback" not in text:
        return text  # a value of the wrong type, or a file that is not a config
    if failed := re.search(r"\w+://\S+: the object store failed .*", text):
        return failed[0]
    if "get_config() takes 0" in text:
        path, variant = config_file(argv)
        return f"{path} has no variants: omit ':{variant}'"
    if "Traceback" in text:  # an error in the config file, on the last line
        return text.strip().splitlines()[-1].removeprefix("ValueError: ")
    missing = re.search(r"No such file or directory: (\S+)", text)
    if missing:
        from rsclip_jax.stages.shared.shipped_configs import list_shipped

        shipped = ", ".join(list_shipped())
        return f"there is no config file {missing[1]}; shipped by name: {shipped}"
    return mistyped_setting(argv) or text.strip()


def config_file(argv: list[str]) -> tuple[str, str]:
    """(the path that --config gives, its variant); "" where there is none."""
    file = re.search(r"^--?config[=\n](.+)", "\n".join(argv), re.MULTILINE)
    path, _, variant = (file[1] if file else "").partition(":")
    return path, variant


def mistyped_setting(argv: list[str]) -> str:
    """The message for the first --config.a.b that does not exist; "" if all exist.

    It suggests the nearest setting, if one is near, and lists all of them.
    """
    path, size = config_file(argv)
    get_config = runpy.run_path(path).get("get_config") if path else None
    if get_config is None:
        return ""
    config = get_config(size) if size else get_config()
    names = re.findall(r"^--?(config\.[\w.]+)", "\n".join(argv), re.MULTILINE)
    for name in names:
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


def run_command() -> None:
    """The entry point of rsclip-jax and python -m rsclip_jax.main."""
    sys.modules["__main__"].__doc__ = __doc__  # --help shows it
    host_memory.use_huge_pages()
    try:
        app.run(main, flags_parser=parse_flags)
    except KeyboardInterrupt:  # before the stages started
        sys.exit(130)


if __name__ == "__main__":
    run_command()
