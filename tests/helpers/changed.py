"""Sources with replaced values or records, or with captions instead of labels."""

import dataclasses

from rsclip_jax.data.sources.wrappers import Wrapper


class Changed(Wrapper):
    """A source with some of its row's values, or its records, replaced."""

    def __init__(self, source, kept=None, **values):
        super().__init__(source)
        self.dataset = dataclasses.replace(source.dataset, **values)
        self.ids = source.ids[:kept]

    def read(self, i, keys):
        return {**self.source[i], "label": self.source[i]["label"] * 0}


ONE_CLASS = {"classes": ("River",), "classnames": ("river",)}


class Captioned(Wrapper):
    """The miniature's scenes with one to three captions each, and no label.

    broken: a scene that cannot be read.
    """

    split = "val"

    def __init__(self, source, broken=()):
        super().__init__(source)
        self.dataset = dataclasses.replace(
            source.dataset, task="captions", classes=(), classnames=(), templates=()
        )
        self.broken = broken

    def texts(self, i):
        long = "and a road " * 30  # longer than the tower takes
        return (f"scene {i % 7}", f"number {i} {long}", f"the {i}.")[: 1 + i % 3]

    def read(self, i, keys):
        if keys and i in self.broken:
            raise ValueError(f"scene {i} is broken")
        record = {**self.source[i], "label": -1}
        return {**record, "captions": self.texts(i)}
