"""The strip of retrieved scenes, checked on the axes."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from rsclip_jax.data import datasets
from rsclip_jax.data.sensors import get_sensor
from rsclip_jax.report.contact_sheet import render, views_of
from rsclip_jax.report.retrieval_strip import plot_retrieval_strip
from tests.helpers.runs import few_scenes


@pytest.fixture(scope="module")
def source():
    with few_scenes():
        return datasets.open_source("miniature", split="val")


@pytest.fixture
def figures(monkeypatch):
    """The figures that were drawn, kept for a look at their axes."""
    kept = []
    save = Figure.savefig

    def keep(self, *args, **kwargs):
        kept.append(self)
        save(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", keep)
    return kept


def test_the_same_location_is_framed_and_scenes_are_in_order(tmp_path, figures, source):
    z = np.eye(len(source), dtype=np.float32)
    wrong = np.roll(z, 1, axis=0)  # query i is nearest to scene i - 1
    for name, query in (("right", z), ("wrong", wrong)):
        plot_retrieval_strip(tmp_path / f"{name}.png", source, query, z, sensor="s1")
    for figure, hits in zip(figures, (6, 0), strict=True):
        first = [ax for i, ax in enumerate(figure.axes) if i % 7 == 2]
        colours = [ax.spines["left"].get_edgecolor() for ax in first]
        assert sum(c[1] > 0.7 > c[0] for c in colours) == hits


def test_the_same_location_is_shown_with_its_rank(tmp_path, figures, source):
    z = np.eye(len(source), dtype=np.float32)
    wrong = np.roll(z, 1, axis=0)
    plot_retrieval_strip(tmp_path / "a.png", source, wrong, z, sensor="s1")
    first = source.dataset.classnames[source[len(source) - 1]["label"]]
    query, match, nearest = figures[0].axes[:3]
    assert query.get_title() == "query: s1"
    assert match.get_title() == f"same location: rank 2/{len(source)}"
    assert nearest.get_title() == first


@pytest.mark.parametrize(
    ("sensor", "heading"),
    [("s1", "VV, VH, VV - VH"), ("s2", "B04, B03, B02"), ("ir", "BT")],
)
def test_a_query_is_drawn_as_the_contact_sheet_draws_it(
    tmp_path, figures, source, sensor, heading
):
    z = np.eye(len(source), dtype=np.float32)
    plot_retrieval_strip(tmp_path / "a.png", source, z, z, sensor=sensor)
    queries = np.linspace(0, len(source) - 1, 6).round().astype(int)
    view = views_of(get_sensor(source.dataset.sensors[sensor]))[0]
    shown, _ = render([source[i][sensor] for i in queries], view)
    for row, picture in enumerate(shown):
        (image,) = figures[0].axes[7 * row].images
        np.testing.assert_array_equal(image.get_array(), picture)
    assert heading in figures[0].get_suptitle()
