"""Training batches on the device, one ahead of the step that takes them."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from rsclip_jax.train import sharding
from rsclip_jax.train.input_wait import InputWait

# A batch's entry that stays on the host: the numbers of its records.
RECORDS = "records"
Position = Mapping[str, Any]  # as JSON


class Feed:
    """Hands out batches, and prepares the next one while the device works.

    batches: a grain iterator. position: where to go on, as an earlier Feed gave it.
    wait: times the drawing of batches.
    """

    def __init__(
        self,
        batches: Any,
        mesh: Mesh,
        position: Position | None = None,
        *,
        wait: InputWait,
    ):
        self._batches, self._mesh, self._wait = batches, mesh, wait
        self._ahead: tuple | None = None
        self._error: BaseException | None = None
        self.records: np.ndarray | None = None  # of the batch handed out last
        if position is not None:
            batches.set_state(dict(position))
        self.position: Position = batches.get_state()  # after that batch

    def __next__(self) -> dict[str, jax.Array]:
        if self._error is not None:
            raise self._error
        batch, self.records, self.position = self._ahead or self._draw()
        self._ahead = None
        return batch

    def prepare(self) -> None:
        """Draws the next batch and starts its copy to the device.

        An error waits until the batch is asked for: the steps before it are good.
        """
        try:
            self._ahead = self._draw()
        except Exception as error:
            self._error = error

    def _draw(self) -> tuple[dict[str, jax.Array], np.ndarray | None, Position]:
        with self._wait.drawing():
            batch = dict(next(self._batches))
            records = batch.pop(RECORDS, None)
            position = self._batches.get_state()
            return sharding.put_batch(batch, self._mesh), records, position
