"""<workdir>/report.html: one file that shows a run, written from its workdir alone."""

from collections.abc import Callable
from pathlib import Path

from rsclip_jax.report import sections
from rsclip_jax.report.document import Section, document
from rsclip_jax.report.gallery import galleries
from rsclip_jax.report.workdir import Workdir, read_workdir

_SECTIONS: tuple[Callable[[Workdir], Section | None], ...] = (
    sections.overview,
    sections.headlines,
    sections.alpha_curves,
    sections.per_class,
    sections.confusion,
    galleries,
    sections.embedding_maps,
    sections.gap_histograms,
    sections.forgetting,
    sections.training,
    sections.results_table,
)


def write_report(workdir: Path | str, say: Callable[[str], None] = print) -> Path:
    """Writes <workdir>/report.html; its path.

    A section is there where its data is. One that fails is left out, and said.
    """
    workdir = Path(workdir)
    run = read_workdir(workdir, say)
    made = []
    for make in _SECTIONS:
        try:
            section = make(run)
        except Exception as error:  # a picture is never worth a run
            name = make.__name__.replace("_", " ")
            say(f"report.html: left out {name}: {type(error).__name__}: {error}")
            continue
        if section is not None:
            made.append(section)
    path = workdir / "report.html"
    temporary = path.with_name(path.name + ".tmp")
    text = document(title_of(run), made, subtitle=str(workdir.resolve()))
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
    return path


def title_of(run: Workdir) -> str:
    """The workdir's name and the stages that it has."""
    stages = ", ".join(run.metas or run.config.get("stages", ()))
    name = run.path.resolve().name
    return f"{name}: {stages}" if stages else name
