"""<workdir>/report.html: one file that shows a run, written from its workdir alone."""

from collections.abc import Callable
from pathlib import Path

from rsclip_jax.report.document import Section, document


def write_report(workdir: Path | str, say: Callable[[str], None] = print) -> Path:
    """Writes <workdir>/report.html; its path."""
    workdir = Path(workdir)
    path = workdir / "report.html"
    sections: list[Section] = []
    path.write_text(document(str(workdir), sections), encoding="utf-8")
    return path
