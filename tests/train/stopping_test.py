"""Signals: at once outside training, after the step within it."""

import contextlib
import os
import signal
import threading

import pytest

from rsclip_jax.train import stopping


def send(signum: int) -> None:
    os.kill(os.getpid(), signum)


def interrupted(signums, prepare=stopping.after_step) -> stopping.Interrupted:
    """The error of these signals within a training, or another block, of a run."""
    with pytest.raises(stopping.Interrupted) as error:
        run(signums, prepare)
    return error.value


def run(signums, prepare) -> None:
    with stopping.at_once("in stage evaluate"), prepare():
        try:
            for signum in signums:
                send(signum)
        except Exception as error:
            raise AssertionError("taken for an error") from error
    raise AssertionError("not stopped")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_at_once_raises_with_the_exit_status_and_one_line(signum):
    before = signal.getsignal(signum)
    error = interrupted([signum], contextlib.nullcontext)
    assert error.code == 128 + signum
    assert str(error) == (
        "stopped in stage evaluate; finished stages and checkpoints are kept: run the"
        " same command again to continue"
    )
    assert signal.getsignal(signum) is before


def test_a_training_waits_for_its_step_but_not_at_a_second_signal(capsys):
    with stopping.after_step() as stop:
        assert not stop.reached()
        send(signal.SIGINT)
        assert stop.reached()
    assert stop.signum == signal.SIGINT
    assert "stopping after this step" in capsys.readouterr().err
    assert interrupted([signal.SIGTERM, signal.SIGTERM]).code == 128 + signal.SIGTERM


class Dropped:
    """Python ignores what is raised in its destructor."""

    def __del__(self):
        with contextlib.suppress(BaseException):
            send(signal.SIGTERM)


def lose_and_go_on(where: str) -> None:
    """A run whose interruption is dropped, up to its next chance to stop."""
    with stopping.at_once("in stage align"):
        Dropped()
        if where == "stop point":
            stopping.stop_point("in stage align")
            raise AssertionError("not stopped")
        if where == "step":
            with stopping.after_step() as stop:
                assert stop.reached()
                assert stop.signum == signal.SIGTERM


@pytest.mark.parametrize("where", ["step", "stop point", "end of the stage"])
def test_an_interruption_that_was_lost_stops_at_the_next_chance(where):
    with pytest.raises(stopping.Interrupted, match="stage align") as error:
        lose_and_go_on(where)
    assert error.value.code == 128 + signal.SIGTERM
    with stopping.after_step() as stop:
        assert not stop.reached()


def signal_after_a_training() -> None:
    with stopping.at_once("here"):
        with stopping.after_step() as stop:
            pass
        try:
            send(signal.SIGTERM)
        finally:
            assert not stop.caught


def test_after_a_training_signals_act_at_once_again():
    with pytest.raises(stopping.Interrupted, match="here"):
        signal_after_a_training()


def test_a_point_between_batches_stops_nothing_without_a_notice():
    stopping.stop_point("here")


def test_in_another_thread_signals_are_left_alone():
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def work():
        with stopping.after_step() as stop:
            seen.append((signal.getsignal(signal.SIGTERM), stop.reached()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(before, False)]
