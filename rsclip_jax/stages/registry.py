"""All stages, each after those that it builds on."""

import difflib
import functools
from collections.abc import Sequence

from ml_collections import ConfigDict

from rsclip_jax.io.paths import check_local
from rsclip_jax.stages import ablate, compare, export, inspect, pack, pretrain, survey
from rsclip_jax.stages.align import stage as align
from rsclip_jax.stages.evaluate import stage as evaluate
from rsclip_jax.stages.map import stage as mapping
from rsclip_jax.stages.patch import stage as patch
from rsclip_jax.stages.shared.run import Run
from rsclip_jax.stages.shared.stage import Stage
from rsclip_jax.train.checkpoint import has_product


def _has_product(stage: str, run: Run) -> bool:
    return has_product(run.workdir / stage)


def _never(run: Run) -> bool:
    """For stages that read files that may have changed."""
    del run
    return False


STAGES = (
    Stage(
        "pretrain",
        pretrain.check_pretrain,
        pretrain.run_pretrain,
        functools.partial(_has_product, "pretrain"),
        binds=("pretrain",),
        needs=("pretrain",),
        needs_of=pretrain.plan_pretrain,
    ),
    Stage(
        "patch",
        patch.check_patch,
        patch.run_patch,
        functools.partial(_has_product, "patch"),
        binds=("patch",),
        needs=("patch",),
        needs_of=patch.plan_patch,
    ),
    Stage(
        "align",
        align.check_align,
        align.run_align,
        functools.partial(_has_product, "align"),
        binds=("align",),
        needs=("align",),
        needs_of=align.plan_align,
    ),
    Stage(
        "ablate",
        ablate.check_ablate,
        ablate.run_ablate,
        ablate.is_ablated,
        binds=("ablate", "align"),
        needs=("ablate", "align"),
        example="configs/ablate.py",
    ),
    Stage(
        "evaluate",
        evaluate.check_evaluate,
        evaluate.run_evaluate,
        evaluate.is_evaluated,
        binds=("evaluate",),
        needs=("evaluate", "datasets"),
        needs_of=evaluate.plan_evaluate,
        example="configs/evaluate.py",
        resumes=True,
    ),
    Stage(
        "survey",
        survey.check_survey,
        survey.run_survey,
        survey.is_surveyed,
        binds=("evaluate",),
        needs=("models", "published", "dry_run", "evaluate", "datasets"),
        example="configs/evaluate.py:rs_clips",
    ),
    Stage(
        "export",
        export.check_export,
        export.run_export,
        export.is_exported,
        binds=("export",),
        needs=("export",),
        example="configs/export.py",
    ),
    Stage(
        "map",
        mapping.check_map,
        mapping.run_map,
        mapping.is_mapped,
        binds=(),
        needs=("scene", "sensor", "classes", "map"),
        example="configs/map.py",
        resumes=True,
    ),
    Stage(
        "inspect",
        inspect.check_inspect,
        inspect.run_inspect,
        _never,
        binds=(),
        needs=("dataset", "inspect"),
        example="configs/inspect.py",
    ),
    Stage(
        "compare",
        compare.check_compare,
        compare.run_compare,
        _never,
        binds=(),
        needs=("runs",),
        example="configs/compare.py",
    ),
    Stage(
        "pack",
        pack.check_pack,
        pack.run_pack,
        _never,
        binds=(),
        needs=("dataset", "pack"),
        example="configs/pack.py",
    ),
)


def find_stages(names: Sequence[str]) -> list[Stage]:
    """The stages of these names, in order.

    Raises ValueError for an unknown name, with the nearest one and a list of all.
    """
    known = {stage.name: stage for stage in STAGES}
    for name in names:
        if name not in known:
            if not name:
                raise ValueError(
                    "config.stages is empty: name one or more, separated by commas, of"
                    f" {', '.join(known)}"
                )
            near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.0)[0]
            raise ValueError(
                f"config.stages names {name!r}: did you mean {near!r}? The stages are"
                f" {', '.join(known)}"
            )
    return [known[name] for name in names]


def check_sections(config: ConfigDict, stages: Sequence[Stage]) -> None:
    """Raises ValueError for a stage whose settings are missing from the config.

    Also for a data root that is not local.
    """
    check_local(config.data_root, "config.data_root")
    for stage in stages:
        if missing := [key for key in stage.needs if key not in config]:
            raise ValueError(
                f"config.stages names {stage.name!r}, but this config has no"
                f" {' and no '.join(f'config.{key}' for key in missing)}: remove"
                f" {stage.name!r} from config.stages, or start from"
                f" --config={stage.example}"
            )
