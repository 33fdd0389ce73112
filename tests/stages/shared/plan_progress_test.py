"""A plan says what it compiles before it does, and how long that took."""

import pytest

from rsclip_jax.stages.shared.plan_progress import Progress
from rsclip_jax.stages.shared.plan_table import Place

HERE, TPU = Place("1 x cpu", None, None), Place("v5e:2x2", None, None, "v5e:2x2")


def test_a_program_is_named_before_it_is_compiled(capsys):
    progress = Progress(True)
    progress.begin([(HERE, 2), (TPU, 2)])
    assert capsys.readouterr().err == (
        "plan: compiling 4 programs, 2 for 1 x cpu (also timed), 2 for v5e:2x2"
        " (a minute to three each) ...\n"
    )
    for i, place in enumerate((HERE, TPU), 1):
        with progress.program("patch: training step", place):
            begun = f"  [{i} of 4] patch: training step for {place.name} ... "
            assert capsys.readouterr().err == begun
        assert capsys.readouterr() == ("", "0 s\n")


def test_a_program_that_fails_ends_its_line(capsys):
    progress = Progress(True, total=1)
    with pytest.raises(ValueError, match="no"), progress.program("x", HERE):
        raise ValueError("no")
    assert capsys.readouterr().err == "  [1 of 1] x for 1 x cpu ... failed\n"


def test_without_progress_bars_nothing_is_said(capsys):
    progress = Progress(False)
    progress.begin([(HERE, 1)])
    with progress.program("x", HERE):
        pass
    assert capsys.readouterr() == ("", "")
