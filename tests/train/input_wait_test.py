"""The time without data: drawing counts only while no step is at work."""

import threading
import time

import pytest

from rsclip_jax.train.input_wait import InputWait

DRAW = 0.05


class Result:
    """A step's array: it becomes ready when told, and says who waits for it."""

    def __init__(self, error: Exception | None = None):
        self.done, self.error = threading.Event(), error

    def block_until_ready(self):
        assert self.done.wait(60)
        if self.error:
            raise self.error


@pytest.fixture
def wait():
    wait = InputWait()
    yield wait
    wait.close()


def end(wait, result):
    """Lets a step end, and waits until this is known."""
    before = wait._finished
    result.done.set()
    until = time.monotonic() + 60
    while wait._finished == before and time.monotonic() < until:
        time.sleep(0.001)


def draw(wait):
    before = wait.seconds
    with wait.drawing():
        time.sleep(DRAW)
    return wait.seconds - before


def test_before_the_first_step_all_drawing_is_waiting(wait):
    assert draw(wait) >= DRAW


def test_drawing_under_a_step_is_free(wait):
    first, second = Result(), Result()
    wait.begin(first)
    assert draw(wait) == 0
    wait.begin(second)
    end(wait, first)
    assert draw(wait) == 0  # the second is still at work
    end(wait, second)
    assert draw(wait) >= DRAW


def test_what_follows_the_end_of_a_step_counts(wait):
    result = Result()
    wait.begin(result)
    started = time.perf_counter()
    with wait.drawing():
        time.sleep(DRAW)
        end(wait, result)
        ended = time.perf_counter()
        time.sleep(DRAW)
    assert DRAW <= wait.seconds <= time.perf_counter() - started - DRAW
    assert wait.seconds >= time.perf_counter() - ended - DRAW


def test_a_step_that_fails_ends_like_any_other(wait):
    result = Result(RuntimeError("out of memory"))
    wait.begin(result)
    end(wait, result)
    assert draw(wait) >= DRAW


def test_the_thread_ends_with_the_training():
    wait = InputWait()
    wait.close()
    wait._thread.join(60)
    assert not wait._thread.is_alive()
