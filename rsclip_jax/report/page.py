"""<workdir>/report.html: a run in one file that opens without a network."""

from collections.abc import Callable
from pathlib import Path

from rsclip_jax.io.files import write_text
from rsclip_jax.io.paths import as_path
from rsclip_jax.report.gallery import galleries
from rsclip_jax.report.render import Section, render_page
from rsclip_jax.report.sections.about import finished, headlines, overview
from rsclip_jax.report.sections.choice import alpha_curves
from rsclip_jax.report.sections.classes import confusion, per_class
from rsclip_jax.report.sections.embeddings import embedding_maps, gap_histograms
from rsclip_jax.report.sections.maps import scene_map
from rsclip_jax.report.sections.results import forgetting, results_table, training
from rsclip_jax.report.workdir import Workdir, read_workdir

_SECTIONS: tuple[Callable[[Workdir], Section | None], ...] = (
    headlines,
    overview,
    scene_map,
    alpha_curves,
    per_class,
    confusion,
    galleries,
    embedding_maps,
    gap_histograms,
    forgetting,
    training,
    results_table,
)


def write_report(workdir: Path | str, log: Callable[[str], None] = print) -> Path:
    """Writes <workdir>/report.html from the workdir alone; returns its path.

    A section without data is absent. One that fails is skipped and logged.
    """
    workdir = as_path(workdir)
    run = read_workdir(workdir, log)
    made = []
    for make in _SECTIONS:
        try:
            section = make(run)
        except Exception as error:  # a picture is never worth a run
            name = make.__name__.replace("_", " ")
            log(f"report.html: left out {name}: {type(error).__name__}: {error}")
            continue
        if section is not None:
            made.append(section)
    title, about = title_of(run)
    path = workdir / "report.html"
    write_text(path, render_page(title, made, about))
    return path


def title_of(run: Workdir) -> tuple[str, str]:
    """(the workdir's name; its path, stages, when the last one ended, what is lost)."""
    stages = list(run.metas)
    about = [str(run.path), ", ".join(stages)]
    if stages:
        about.append(f"finished {finished(run, stages[-1])}")
    about += [f"not complete: {text}" for text in run.lost]
    return run.path.resolve().name, " · ".join(filter(None, about))
