"""The end of a run: the closing table and the report."""

from pathlib import Path

from rsclip_jax.data.specs import short_specs
from rsclip_jax.records.lost import find_all_lost
from rsclip_jax.records.results import read_results
from rsclip_jax.report.page import write_report
from rsclip_jax.report.table import closing_records, describe_alpha, format_table
from rsclip_jax.stages.shared.run import Run
from rsclip_jax.train.checkpoint import has_product, load_meta


def close(run: Run) -> None:
    """Prints the closing table, writes the report, and logs the paths of all files.

    One process does so for all.
    """
    patch = run.config.get("patch", {})
    tests = [patch.get("test", ""), patch.get("supported_test", ())]
    shown = [spec for one in tests for spec in short_specs(one)]
    records = closing_records(read_results(run.results), shown)
    if not records:  # such as for an export
        is_map = (run.workdir / "map" / "meta.json").exists()
        if is_map and (path := _try_report(run)):
            run.log(f"report: {path}")
        return
    patched = run.workdir / "patch"
    meta = load_meta(patched) if has_product(patched) else None
    run.log("\n" + format_table(records, meta.alpha if meta else None))
    if meta:
        run.log(f"(patch: after = {describe_alpha(meta)})")
        if meta.alpha_note:
            run.log(f"warning: {meta.alpha_note}")
    for text in find_all_lost(run.workdir):
        run.log(f"warning: this table is not complete: {text}")
    run.log("")
    pictures = sorted(str(p) for p in run.workdir.glob("*/*.png"))
    run.log(f"all results: {run.results}\npictures: {', '.join(pictures) or 'none'}")
    if path := _try_report(run):
        run.log(f"report: {path}")


def _try_report(run: Run) -> Path | None:
    """Writes report.html. The run is done, so an error is only logged."""
    try:
        return write_report(run.workdir, run.log)
    except Exception as error:
        run.log(f"report.html could not be written: {type(error).__name__}: {error}")
        return None
