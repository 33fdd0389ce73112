"""Whether results.jsonl still has all lines that a finished stage wrote there."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rsclip_jax.io.json_lines import read_json_lines
from rsclip_jax.records.meta import read_meta, write_meta


def note_results(workdir: Path, stage: str) -> None:
    """Keeps the number and digest of a finished stage's results in its meta.json.

    Does nothing for a stage without a meta.json.
    """
    folder = workdir / stage
    if (folder / "meta.json").exists():
        results = _describe(_lines(workdir, stage))
        write_meta(folder, dataclasses.replace(read_meta(folder), results=results))


def find_lost(workdir: Path, stage: str) -> str:
    """How the results of a finished stage differ from what it wrote; "" if they do not.

    Also "" for a stage that is not finished, or that an older version finished.
    """
    folder = workdir / stage
    if not (folder / "meta.json").exists():
        return ""
    wrote = read_meta(folder).results
    if wrote is None:
        return ""
    lines = _lines(workdir, stage)
    now = _describe(lines)
    if now == dict(wrote):
        return ""
    path = workdir / "results.jsonl"
    many = wrote.get("lines")
    found = f"{path} has {len(lines)} of the {many} results of stage {stage!r}"
    if len(lines) == many:
        found = f"{path}: results of stage {stage!r} have changed since it wrote them"
    elif not isinstance(many, int) or len(lines) > many:
        found = (
            f"{path} has {len(lines)} results of stage {stage!r}, which wrote {many}"
        )
    return f"{found}; restore it from a copy, or remove {folder} to run the stage again"


def find_all_lost(workdir: Path) -> list[str]:
    """find_lost of every stage of a workdir that has lost results."""
    metas = sorted(workdir.glob("*/meta.json"))
    found = (find_lost(workdir, path.parent.name) for path in metas)
    return [text for text in found if text]


def _lines(workdir: Path, stage: str) -> list[dict[str, Any]]:
    lines = read_json_lines(workdir / "results.jsonl")
    return [values for values in lines if values.get("stage") == stage]


def _describe(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    text = "\n".join(json.dumps(values, sort_keys=True) for values in lines)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return {"lines": len(lines), "digest": digest}
