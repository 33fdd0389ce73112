"""Stage ablate: runs stage align for every combination of settings; one table."""

import copy
import dataclasses
import difflib
import hashlib
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from rsclip_jax import api
from rsclip_jax.io.files import write_text
from rsclip_jax.io.texts import first_of
from rsclip_jax.records import results
from rsclip_jax.records.lost import find_lost, note_results
from rsclip_jax.records.meta import StageMeta, read_meta, write_meta
from rsclip_jax.report.ablation import Row, format_csv, format_markdown
from rsclip_jax.stages.align.stage import check_align, run_align
from rsclip_jax.stages.shared.run import Run
from rsclip_jax.train import checkpoint, processes


@dataclasses.dataclass(frozen=True)
class Setting:
    """One combination: its folder's name, and swept key -> value."""

    name: str
    values: dict[str, Any]

    @property
    def labels(self) -> dict[str, str]:
        """Swept key -> its value, abbreviated."""
        return {key: short(value) for key, value in self.values.items()}


def check_ablate(run: Run) -> None:
    """Raises ValueError naming every combination that cannot be run."""
    wrong = []
    for setting in settings_of(run.config):
        try:
            at = with_values(run, setting)
            # in this run's workdir, which has or will have the CLIP
            check_align(dataclasses.replace(at, workdir=run.workdir))
            check_begun(at)
        except (ValueError, FileNotFoundError) as error:
            wrong.append(f"{setting.name}: {error}")
    if wrong:
        raise ValueError("config.ablate.sweep: " + first_of(wrong, "\n  "))


def run_ablate(run: Run) -> None:
    """Aligns and reports each unfinished combination in <workdir>/ablate/<name>.

    Then writes <workdir>/ablate/table.md and table.csv, and adds all results to
    results.jsonl.
    """
    settings = settings_of(run.config)
    for i, setting in enumerate(settings, start=1):
        at = on_clip_of(run, with_values(run, setting))
        text = f"ablate: {i} of {len(settings)}, {setting.name}"
        if is_aligned(at):
            run.log(f"{text}: already done, skipped")
            if lost := find_lost(at.workdir, "align"):
                run.log(f"warning: the table is not complete: {lost}")
            continue
        run.log(text)
        if processes.is_first():
            results.start_stage(at.results, "align")
        run_align(at)
        if processes.is_first():
            note_results(at.workdir, "align")
    if processes.is_first():
        write_table(run, settings)


def is_aligned(at: Run) -> bool:
    """Whether a combination's product is there, as process 0 sees it."""
    return processes.first_decides(lambda: checkpoint.has_product(at.workdir / "align"))


def write_table(run: Run, settings: list[Setting]) -> None:
    """Writes the table of results after each training, then meta.json."""
    folder, rows = run.workdir / "ablate", []
    for setting in settings:
        at = with_values(run, setting)
        found = [
            r
            for r in results.read_results(at.results)
            if r.stage == "align" and r.step == at.config.align.steps
        ]
        # the table marks the highest value, but a higher gap is not better
        shown = [r for r in found if r.task != "modality_gap"]
        rows.append(Row(setting.labels, shown))
        run.write(
            dataclasses.replace(r, stage="ablate", setting=setting.name) for r in found
        )
    text = format_markdown(rows)
    write_text(folder / "table.md", text + "\n")
    write_text(folder / "table.csv", format_csv(rows))
    run.log(f"\n{text}\n\n{folder / 'table.md'}, {folder / 'table.csv'}")
    write_meta(folder, StageMeta(settings=digests(run, settings)))


def is_ablated(run: Run) -> bool:
    """Whether the table is of this sweep and of the current products."""
    folder = run.workdir / "ablate"
    if not (folder / "meta.json").exists():
        return False
    return read_meta(folder).settings == digests(run, settings_of(run.config))


def digests(run: Run, settings: list[Setting]) -> dict[str, str]:
    """{name: digest of its product, or ""}."""
    found = {}
    for setting in settings:
        folder = run.workdir / "ablate" / setting.name / "align"
        done = checkpoint.has_product(folder)
        found[setting.name] = checkpoint.load_meta(folder).digest if done else ""
    return found


# Settings


def settings_of(config: ConfigDict) -> list[Setting]:
    """Every combination of config.ablate.sweep, ((key, (value, ...)), ...), in order.

    Raises ValueError for a key that is not a setting of stage align, with similar ones.
    """
    sweep = config.ablate.sweep
    form = "(('align.losses', (..., ...)), ('align.student', ('clip', 'vit')))"
    if not sweep or not all(_is_axis(axis) for axis in sweep):
        raise ValueError(
            f"config.ablate.sweep = {sweep!r}: give each setting with a tuple of its"
            f" values, as {form}"
        )
    keys = [key for key, _ in sweep]
    known = list(_swept_keys(config))
    for key in keys:
        if key not in known or keys.count(key) > 1:
            near = difflib.get_close_matches(str(key), known, n=3, cutoff=0.4)
            raise ValueError(
                f"config.ablate.sweep names {key!r}, which is not a setting of stage"
                " align, or is named twice; similar:"
                f" {', '.join(near) or first_of(known)}"
            )
    combined = itertools.product(*(values for _, values in sweep))
    return _named([dict(zip(keys, values, strict=True)) for values in combined])


def _is_axis(axis: Any) -> bool:
    pair = isinstance(axis, tuple | list) and len(axis) == 2
    return pair and isinstance(axis[1], tuple | list) and len(axis[1]) > 0


def _swept_keys(config: ConfigDict) -> Iterator[str]:
    """The settings that can be swept: "seed" and "align.<...>"."""
    yield "seed"
    sections = [("align", config.get("align", ConfigDict()))]
    while sections:
        prefix, section = sections.pop()
        for key, value in section.items():
            name = f"{prefix}.{key}"
            if isinstance(value, ConfigDict):
                sections.append((name, value))
            else:
                yield name


def _named(combined: list[dict[str, Any]]) -> list[Setting]:
    """Settings with folder names; a digest makes equal names distinct."""
    names = []
    for values in combined:
        parts = [f"{key.rsplit('.', 1)[-1]}={short(x)}" for key, x in values.items()]
        names.append(re.sub(r"[^\w.+=,-]+", "-", ",".join(parts)))
    settings = []
    for name, values in zip(names, combined, strict=True):
        if len(name) > 100 or names.count(name) > 1:
            digest = hashlib.sha256(repr(values).encode()).hexdigest()[:6]
            name = f"{name[:100]},{digest}"
        settings.append(Setting(name, values))
    if len({s.name for s in settings}) < len(settings):
        raise ValueError("config.ablate.sweep names the same combination twice")
    return settings


def short(value: Any) -> str:
    """Abbreviates a value: (("mse", 1.0), ("labels", 0.05)) is mse+0.05labels."""
    if isinstance(value, str):
        return Path(value).name
    if isinstance(value, int | float):
        return f"{value:g}" if not isinstance(value, bool) else str(value)
    if not isinstance(value, tuple | list):
        return str(value)
    pairs = [x for x in value if isinstance(x, tuple | list) and len(x) == 2]
    if len(pairs) < len(value) or not all(isinstance(x, str) for x, _ in pairs):
        return "-".join(map(short, value)) or "none"
    return "+".join(x if w == 1 else f"{short(w)}{x}" for x, w in pairs) or "none"


def with_values(run: Run, setting: Setting) -> Run:
    """The run of one combination, in a separate folder without a CLIP.

    Raises ValueError for a value of another type than the setting has.
    """
    config = copy.deepcopy(run.config)
    for key, value in setting.values.items():
        *sections, last = key.split(".")
        section = config
        for part in sections:
            section = section[part]
        try:
            section[last] = value
        except TypeError as error:
            raise ValueError(f"{key}: {error}") from error
    folder = run.workdir / "ablate" / setting.name
    return dataclasses.replace(run, config=config, workdir=folder)


def on_clip_of(run: Run, at: Run) -> Run:
    """The run of a combination, starting from the CLIP of the whole run's workdir."""
    config = at.config
    with config.unlocked():
        config.stages = ("align",)
        if any(checkpoint.has_product(run.workdir / s) for s in api.CLIP_STAGES):
            config.init = str(run.workdir.resolve())
    return at


def check_begun(at: Run) -> None:
    """Raises ValueError if its folder holds an alignment with other settings."""
    folder = at.workdir / "align"
    if not checkpoint.has_product(folder):
        return
    then = checkpoint.load_meta(folder).config or {}
    now = json.loads(json.dumps(at.config.to_dict()))
    if [then["align"], then["seed"]] != [now["align"], now["seed"]]:
        raise ValueError(
            f"{folder} was made with other settings: choose another --workdir, or"
            " remove that folder"
        )
