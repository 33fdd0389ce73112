"""The report of a run: what is there, what is not, and that nothing escapes."""

import json
import re
import shutil

import pytest

from rsclip_jax.records.results import read_results
from rsclip_jax.report.page import write_report
from rsclip_jax.stages.shared import closing
from tests.helpers.pages import Page
from tests.helpers.workdirs import HOSTILE, make_workdir, put

TITLES = [
    "Headline numbers",
    "What ran",
    "Choice of alpha",
    "Class by class",
    "Confusion",
    "Retrieval",
    "Map of the embeddings",
    "Modality gap",
    "Forgetting",
    "Training",
    "All results",
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A workdir with everything, only to be read."""
    return make_workdir(tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture
def workdir(whole, tmp_path):
    """The same, to be changed."""
    return shutil.copytree(whole, tmp_path / "run")


def read_report(workdir, logged=None) -> str:
    logged = [] if logged is None else logged
    return write_report(workdir, logged.append).read_text(encoding="utf-8")


def test_a_whole_workdir_has_every_section_and_nothing_is_left_out(whole):
    logged: list[str] = []
    parsed = Page(read_report(whole, logged))
    assert logged == []
    assert parsed.text_of("h2") == TITLES
    linked = [e["href"] for tag, e in parsed.elements if tag == "a"]
    ids = [e["id"] for tag, e in parsed.elements if tag == "section"]
    assert linked == [f"#{name}" for name in ids]
    assert len(ids) == len(TITLES)
    every = [e["id"] for _, e in parsed.elements if "id" in e]
    assert len(set(every)) == len(every)
    assert parsed.open == []


def test_the_page_loads_nothing(whole):
    text = read_report(whole)
    for tag, attributes in Page(text).elements:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        for name in ("src", "href", "xlink:href", "srcset", "action", "data"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:image/")), (tag, value)
    assert "http" not in text
    assert "@import" not in text
    assert set(re.findall(r"url\((.)", text)) <= {"#"}  # the charts' clip paths


def test_words_from_the_data_are_text_and_never_html(whole):
    text = read_report(whole)
    assert HOSTILE not in text
    parsed = Page(text)
    assert [tag for tag, _ in parsed.elements].count("script") == 1
    assert any(HOSTILE in t for t in parsed.text_of("span"))  # the bars
    assert any(HOSTILE in t for t in parsed.text_of("th"))  # the matrix, the text query
    assert any(HOSTILE in t for t in parsed.text_of("td"))  # a source's path


@pytest.mark.parametrize(
    ("gone", "missing"),
    [
        ("patch/thumbnails align/thumbnails", {"Retrieval"}),
        ("align/metrics.jsonl", {"Training"}),
        (
            "patch/outcomes align/outcomes",
            {"Confusion", "Retrieval", "Map of the embeddings", "Modality gap"},
        ),
        (
            "patch/outcomes/before align/outcomes/before",
            {"Map of the embeddings", "Modality gap"},
        ),
        ("align/outcomes", {"Modality gap"}),
        (
            "results.jsonl",
            {"Headline numbers", "Choice of alpha", "Class by class", "Forgetting"}
            | {"All results"},
        ),
    ],
)
def test_a_section_without_its_data_is_absent(workdir, gone, missing):
    for name in gone.split():
        path = workdir / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    logged: list[str] = []
    titles = Page(read_report(workdir, logged)).text_of("h2")
    assert titles == [title for title in TITLES if title not in missing]
    assert logged == []


def test_an_empty_workdir_has_a_page_too(tmp_path):
    assert Page(read_report(tmp_path)).text_of("h2") == ["What ran"]


def test_a_broken_outcome_is_logged_and_the_others_stay(workdir):
    broken = workdir / "align/outcomes/after/scenes-test.npz"
    broken.write_bytes(broken.read_bytes()[:500])
    logged: list[str] = []
    parsed = Page(read_report(workdir, logged))
    (line,) = logged
    assert line.startswith(f"report.html: left out {broken}")
    assert "Confusion" in parsed.text_of("h2")  # patch's is whole
    assert "Modality gap" not in parsed.text_of("h2")


def test_a_section_that_fails_is_logged_and_the_others_stay(workdir):
    meta = json.loads((workdir / "patch/meta.json").read_text())
    put(workdir / "patch/meta.json", json.dumps({**meta, "alpha_ci95": "wide"}))
    logged: list[str] = []
    titles = Page(read_report(workdir, logged)).text_of("h2")
    (line,) = logged
    assert line.startswith("report.html: left out alpha curves: ")
    assert titles == [title for title in TITLES if title != "Choice of alpha"]


def test_the_table_has_every_value_of_the_results(whole):
    text = read_report(whole)
    table = text[text.index('<section id="all-results">') :]
    parsed = Page(table[: table.index("</section>") + len("</section>")])
    keys = [name.replace(" ", "_") for name in parsed.text_of("button")]
    keys[keys.index("95_%")] = "ci95"
    records = read_results(whole / "results.jsonl")
    rows = [row for row in parsed.rows if row]
    assert len(rows) == len(records)
    for row, record in zip(rows, records, strict=True):
        shown = dict(zip(keys, (cell["data-key"] for cell in row), strict=True))
        for key, value in record.to_json().items():
            if key == "per_class":
                assert key not in shown
                continue
            value = value[0] if isinstance(value, list) else value
            assert shown[key] == ("" if value is None else str(value))


def test_the_same_workdir_gives_the_same_page(whole, tmp_path):
    first = read_report(whole)
    assert read_report(whole) == first


def test_a_report_that_cannot_be_written_costs_no_run(tmp_path, monkeypatch):
    class Run:
        workdir = tmp_path
        logged: list[str] = []  # noqa: RUF012
        log = logged.append

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(closing, "write_report", fail)
    assert closing._try_report(Run) is None
    assert Run.logged == ["report.html could not be written: OSError: no space left"]
