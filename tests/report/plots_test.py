"""Pictures: what they show is checked on the pixels and the axes."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from rsclip_jax.data import datasets
from rsclip_jax.data.sensors import get_sensor
from rsclip_jax.records.budget import Budget
from rsclip_jax.report import plots
from rsclip_jax.report.contact_sheet import render, views_of
from tests.helpers.runs import few_scenes


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


def test_the_alpha_curve_stars_the_chosen_point(tmp_path, figures):
    task, kept = {0.0: 0.2, 0.5: 0.6, 1.0: 0.8}, {0.0: 0.5, 0.5: 0.46, 1.0: 0.3}
    path = tmp_path / "deep" / "curve.png"
    plots.plot_alpha_curve(
        path, ["a:val", "b:val"], [task, kept], 0.5, budget=Budget(0.05)
    )
    with Image.open(path) as picture:
        assert min(picture.size) > 300
    (axes,) = figures[0].axes
    line, star, budget = axes.lines
    assert set(budget.get_ydata()) == {45}
    np.testing.assert_allclose(line.get_xydata(), [[20, 50], [60, 46], [80, 30]])
    np.testing.assert_allclose(star.get_xydata(), [[60, 46]])
    assert "a:val" in axes.get_xlabel()


def test_the_strip_frames_the_same_place_and_orders_by_similarity(tmp_path, figures):
    with few_scenes():
        source = datasets.open_source("miniature", split="val")
        z = np.eye(len(source), dtype=np.float32)
        wrong = np.roll(z, 1, axis=0)  # query i is nearest to scene i - 1
        for name, query in (("right", z), ("wrong", wrong)):
            plots.plot_retrieval_strip(
                tmp_path / f"{name}.png", source, query, z, sensor="s1"
            )
    for figure, hits in zip(figures, (6, 0), strict=True):
        first = [ax for i, ax in enumerate(figure.axes) if i % 7 == 2]
        colours = [ax.spines["left"].get_edgecolor() for ax in first]
        assert sum(c[1] > 0.7 > c[0] for c in colours) == hits


def test_the_strip_shows_the_true_place_with_its_rank(tmp_path, figures):
    with few_scenes():
        source = datasets.open_source("miniature", split="val")
        z = np.eye(len(source), dtype=np.float32)
        plots.plot_retrieval_strip(
            tmp_path / "a.png", source, np.roll(z, 1, axis=0), z, sensor="s1"
        )
        first = source.dataset.classnames[source[len(source) - 1]["label"]]
    query, place, nearest = figures[0].axes[:3]
    assert query.get_title() == "query: s1"
    assert place.get_title() == f"same place: rank 2/{len(source)}"
    assert nearest.get_title() == first


def test_without_a_supported_set_the_task_is_drawn_along_alpha(tmp_path, figures):
    task = {0.0: 0.2, 0.5: 0.6, 1.0: 0.8}
    path = tmp_path / "curve.png"
    plots.plot_alpha_curve(path, ["a:val"], [task], 1.0, budget=Budget(0.05))
    line, _ = figures[0].axes[0].lines
    np.testing.assert_allclose(line.get_xydata(), [[0, 20], [0.5, 60], [1, 80]])


def test_several_tasks_are_drawn_by_their_mean_and_each_along_alpha(tmp_path, figures):
    tasks = [{0.0: 0.2, 0.5: 0.6, 1.0: 0.8}, {0.0: 0.4, 0.5: 0.4, 1.0: 0.2}]
    kept = {-1.0: 0.55, 0.0: 0.5, 0.5: 0.46, 1.0: 0.3}  # the original's at -1
    plots.plot_alpha_curve(
        tmp_path / "curve.png",
        ["a:val", "b:val", "c:val"],
        [*tasks, kept],
        0.5,
        budget=Budget(0.05),
        tasks=2,
        with_blocks=(0.55, 0.47),
    )
    trade, along = figures[0].axes
    line, star, budget, blocks = trade.lines
    np.testing.assert_allclose(line.get_xydata(), [[30, 50], [50, 46], [50, 30]])
    np.testing.assert_allclose(star.get_xydata(), [[50, 46]])
    assert budget.get_ydata()[0] == pytest.approx(50)
    np.testing.assert_allclose(blocks.get_xydata(), [[55, 47]])
    mean, *each, chosen = along.lines
    np.testing.assert_allclose(mean.get_ydata(), [30, 50, 50])
    for drawn, curve in zip(each, [*tasks, kept], strict=True):
        want = [[a, 100 * v] for a, v in curve.items() if a >= 0]
        np.testing.assert_allclose(drawn.get_xydata(), want)
    assert set(chosen.get_xdata()) == {0.5}


@pytest.mark.parametrize(
    ("sensor", "heading"),
    [("s1", "VV, VH, VV - VH"), ("s2", "B04, B03, B02"), ("ir", "BT")],
)
def test_a_query_is_drawn_as_the_contact_sheet_draws_it(
    tmp_path, figures, sensor, heading
):
    with few_scenes():
        source = datasets.open_source("miniature", split="val")
        z = np.eye(len(source), dtype=np.float32)
        plots.plot_retrieval_strip(tmp_path / "a.png", source, z, z, sensor=sensor)
        places = np.linspace(0, len(source) - 1, 6).round().astype(int)
        arrays = [source[i][sensor] for i in places]
    view = views_of(get_sensor(source.dataset.sensors[sensor]))[0]
    shown, _ = render(arrays, view)
    for row, picture in enumerate(shown):
        (image,) = figures[0].axes[7 * row].images
        np.testing.assert_array_equal(image.get_array(), picture)
    assert heading in figures[0].get_suptitle()
