"""Times of several things in turn, so that all see the same load, and their table."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping

Clock = Callable[[], float]  # runs something once; its seconds
Times = dict[str, list[float]]


def machine() -> str:
    """This machine in words, and how busy it is with other things before we start."""
    load = os.getloadavg()[0]
    return f"{os.cpu_count()}-core {platform.machine()} machine, load {load:.1f}"


def timed(run: Callable[[], object]) -> float:
    """Seconds that run() takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def in_turn(clocks: Mapping[str, Clock], rounds: int, *, warmup: int = 1) -> Times:
    """Seconds of every clock in every round: A-B-A-B, after warm-up rounds."""
    times: Times = {name: [] for name in clocks}
    for i in range(warmup + rounds):
        for name, clock in clocks.items():
            seconds = clock()
            if i >= warmup:
                times[name].append(seconds)
    return times


def print_table(times: Times, examples: int) -> None:
    """A line for each: median, least and most milliseconds, examples a second."""
    width = max(map(len, times))
    print(f"  {'':{width}} {'median ms':>10}{'min':>10}{'max':>10}{'examples/s':>12}")
    for name, seconds in times.items():
        median = statistics.median(seconds)
        cells = [f"{1e3 * x:10.1f}" for x in (median, min(seconds), max(seconds))]
        print(f"  {name:{width}} {''.join(cells)}{examples / median:12.1f}")


def print_ratio(times: Times, first: str, second: str) -> None:
    """How many times longer the first takes: of the medians, and round by round."""
    ratio = statistics.median(times[first]) / statistics.median(times[second])
    rounds = [a / b for a, b in zip(times[first], times[second], strict=True)]
    print(
        f"  {first} takes {ratio:.2f} times as long as {second}"
        f" (by round {min(rounds):.2f} to {max(rounds):.2f})"
    )
