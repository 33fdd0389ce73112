"""What the figures draw, checked on the axes."""

from functools import partial

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from sklearn.decomposition import PCA

from rsclip_jax.records.budget import Budget
from rsclip_jax.report import figures


def drawn(draw):
    """The axes after a drawing."""
    axes = Figure().subplots()
    draw(axes)
    return axes


def line_of(axes, label):
    """The one line with a label that starts like this."""
    (line,) = [x for x in axes.lines if str(x.get_label()).startswith(label)]
    return line


@pytest.fixture
def saved(monkeypatch):
    """The drawings of each PNG, kept for a look at their axes."""
    kept, save = [], figures.save_png

    def keep(path, draws, size, title):
        kept.extend(map(drawn, draws))
        save(path, draws, size, title)

    monkeypatch.setattr(figures, "save_png", keep)
    return kept


def test_values_lie_along_alpha_with_limits_and_chance():
    axes = drawn(
        partial(
            figures.draw_along_alpha,
            curves={"a:val": {1.0: 80, 0.0: 20, 0.5: 60}, "b:val": {0.0: 50, 1.0: 30}},
            chosen=0.5,
            interval=(0.25, 0.75),
            least={"b:val": 45},
            chance={"a:val": 10, "b:val": 10},
            whiskers={"a:val": {0.5: (55, 65)}},
        )
    )
    points = line_of(axes, "task: a:val").get_xydata()
    np.testing.assert_array_equal(points, [[0, 20], [0.5, 60], [1, 80]])
    points = line_of(axes, "supported: b:val").get_xydata()
    np.testing.assert_array_equal(points, [[0, 50], [1, 30]])
    assert set(line_of(axes, "budget: least for b:val").get_ydata()) == {45}
    chance = line_of(axes, "chance 10.0 %: a:val, b:val")
    assert set(chance.get_ydata()) == {10}
    assert set(line_of(axes, "chosen: alpha 0.5").get_xdata()) == {0.5}
    assert [[0.5, 55], [0.5, 65]] in [x.get_xydata().tolist() for x in axes.lines]
    assert (
        axes.patches[0].get_label()
        == "chosen in 95 % of bootstrap samples: 0.25 to 0.75"
    )


def test_the_alpha_curve_stars_the_chosen_point(tmp_path, saved):
    task, kept = {0.0: 0.2, 0.5: 0.6, 1.0: 0.8}, {0.0: 0.5, 0.5: 0.46, 1.0: 0.3}
    path = tmp_path / "deep" / "curve.png"
    figures.plot_alpha_curve(
        path, ["a:val", "b:val"], [task, kept], 0.5, budget=Budget(0.05)
    )
    with Image.open(path) as picture:
        assert min(picture.size) > 300
    _, trade = saved
    line, least, star = trade.lines
    np.testing.assert_allclose(line.get_xydata(), [[20, 50], [60, 46], [80, 30]])
    np.testing.assert_allclose(star.get_xydata(), [[60, 46]])
    assert star.get_marker() == "*"
    sides = {text.get_text(): text.get_ha() for text in trade.texts}
    assert sides == {"alpha 0": "left", "alpha 0.5": "right", "alpha 1": "right"}
    np.testing.assert_allclose(least.get_ydata(), 45)
    assert trade.get_xlabel() == "a:val: accuracy (%)"


def test_without_a_supported_dataset_there_is_the_task_along_alpha(tmp_path, saved):
    task = {0.0: 0.2, 0.5: 0.6, 1.0: 0.8}
    path = tmp_path / "curve.png"
    figures.plot_alpha_curve(path, ["a:val"], [task], 1.0, budget=Budget(0.05))
    (along,) = saved
    points = line_of(along, "task: a:val").get_xydata()
    np.testing.assert_allclose(points, [[0, 20], [0.5, 60], [1, 80]])


def test_several_tasks_are_drawn_by_their_mean_and_each_along_alpha(tmp_path, saved):
    tasks = [{0.0: 0.2, 0.5: 0.6, 1.0: 0.8}, {0.0: 0.4, 0.5: 0.4, 1.0: 0.2}]
    kept = {-1.0: 0.55, 0.0: 0.5, 0.5: 0.46, 1.0: 0.3}  # the original's at -1
    figures.plot_alpha_curve(
        tmp_path / "curve.png",
        ["a:val", "b:val", "c:val"],
        [*tasks, kept],
        0.5,
        budget=Budget(0.05),
        tasks=2,
        with_blocks=(0.55, 0.47),
    )
    along, trade = saved
    line, least, star, blocks = trade.lines
    np.testing.assert_allclose(line.get_xydata(), [[30, 50], [50, 46], [50, 30]])
    np.testing.assert_allclose(star.get_xydata(), [[50, 46]])
    np.testing.assert_allclose(least.get_ydata(), 50)
    np.testing.assert_allclose(blocks.get_xydata(), [[55, 47]])
    labels = ["task: a:val", "task: b:val", "supported: c:val"]
    for label, curve in zip(labels, [*tasks, kept], strict=True):
        want = [[a, 100 * v] for a, v in curve.items() if a >= 0]
        np.testing.assert_allclose(line_of(along, label).get_xydata(), want)


def test_choices_are_starred_where_they_are_known():
    curves = {"a": {0.0: 40.0, 0.5: 55.0}, "b": {0.0: 45.0, 0.5: 60.0}, "c": {}}
    chosen = {"a": 0.5, "b": None, "c": 0.5}
    axes = drawn(partial(figures.draw_choices, curves=curves, chosen=chosen))
    stars = [x.get_xydata().tolist() for x in axes.lines if x.get_marker() == "*"]
    assert stars == [[[0.5, 55.0]]]
    assert line_of(axes, "b").get_xydata().tolist() == [[0, 45], [0.5, 60]]


@pytest.mark.parametrize(
    ("name", "points", "scale"),
    [
        ("loss", [(1, 100.0), (2, 0.1)], "log"),
        ("loss", [(1, 3.0), (2, 2.0)], "linear"),
        ("lr", [(1, 100.0), (2, 0.1)], "linear"),
    ],
)
def test_curves_over_magnitudes_are_logarithmic(name, points, scale):
    draw = partial(figures.draw_training, name=name, roles=figures.RUN_ROLES)
    axes = drawn(partial(draw, curves={"a": points, "b": []}))
    assert axes.get_yscale() == scale
    assert ("logarithmic" in axes.get_title()) == (scale == "log")
    assert line_of(axes, "a").get_xydata().tolist() == [list(p) for p in points]


def test_the_map_is_of_principal_components():
    rng = np.random.default_rng(0)
    z = {"rgb": rng.normal(size=(9, 4)), "s1": rng.normal(size=(9, 4)) + 3}
    moved = {**z, "s1": z["s1"] + 5}
    (before, after), labels = figures.principal_axes(z, moved)
    stacked = np.concatenate([*z.values(), *moved.values()])
    pca = PCA(2).fit(stacked)
    for name, share in zip(("1st", "2nd"), pca.explained_variance_ratio_, strict=True):
        assert any(
            f"{name} principal component ({100 * share:.0f} %" in x for x in labels
        )
    ours = np.concatenate([*before.values(), *after.values()])
    theirs = pca.transform(stacked)
    for a, b in zip(ours.T, theirs.T, strict=True):  # a component has no sign
        np.testing.assert_allclose(a, b * np.sign(a @ b), atol=1e-9)


def test_a_map_joins_the_same_locations():
    points = {
        "rgb": np.arange(6.0).reshape(3, 2),
        "s1": np.arange(6.0, 12).reshape(3, 2),
    }
    points["text"] = np.zeros((2, 2))
    axes = drawn(
        partial(figures.draw_map, points=points, labels="ab", limits=[(0, 12)] * 2)
    )
    ends = [x.get_xydata().tolist() for x in axes.lines if x.get_marker() == "None"]
    joined = [[points["rgb"][i].tolist(), points["s1"][i].tolist()] for i in range(3)]
    assert [pair for pair in ends if pair] == joined
    assert line_of(axes, "text").get_xydata().tolist() == [[0, 0], [0, 0]]


def test_histograms_are_shares_of_each_kind():
    same, others = np.array([0.8, 0.9, 0.9, 0.9]), np.array([0.1, 0.1])
    edges = np.linspace(0, 1, 11)
    draw = partial(figures.draw_cosines, sensor="s1", edges=edges, top=110)
    axes = drawn(partial(draw, same=same, others=others))
    heights = line_of(axes, "rgb and s1, same location").get_ydata()
    np.testing.assert_allclose(heights, 100 * np.histogram(same, edges)[0] / 4)
    np.testing.assert_allclose(line_of(axes, "two locations").get_ydata().sum(), 100)
