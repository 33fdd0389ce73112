"""The processes that pack one split together."""

import dataclasses
from collections.abc import Callable
from typing import Any


def _call(decide: Callable[[], Any]) -> Any:
    return decide()


def _go_on(name: str) -> None:
    """Waits for nobody."""


@dataclasses.dataclass(frozen=True)
class Team:
    """Several processes, which share a folder and divide its shards; by default one.

    index, count: this process, from 0, and their number. first_decides: calls a
    function in process 0 and returns its result, as JSON returns it, in all. wait:
    returns once all have called it with a name.
    """

    index: int = 0
    count: int = 1
    first_decides: Callable[[Callable[[], Any]], Any] = _call
    wait: Callable[[str], None] = _go_on


ALONE = Team()
