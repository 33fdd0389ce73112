"""The settings of stage evaluate, divided into parts that are measured separately."""

import dataclasses
from collections.abc import Iterable, Mapping

from ml_collections import ConfigDict

from rsclip_jax.data.specs import as_specs, short_specs
from rsclip_jax.records.results import Result
from rsclip_jax.report.names import set_name

_OF_PROBES = ("linear_probe", "knn")
Probe = tuple[str, ...]  # (train, val, test)


@dataclasses.dataclass(frozen=True)
class Parts:
    """The measurements of stage evaluate, in independent parts.

    datasets: for zero-shot, retrieval and gap. probes: (train, val, test). forgetting:
    datasets to compare with the reference on.
    """

    datasets: tuple[str, ...] = ()
    probes: tuple[Probe, ...] = ()
    forgetting: tuple[str, ...] = ()

    @property
    def encoded(self) -> tuple[str, ...]:
        """The distinct splits that the evaluated model encodes."""
        of_probes = (spec for sets in self.probes for spec in sets)
        return tuple(dict.fromkeys((*self.datasets, *of_probes)))

    @property
    def specs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.encoded, *self.forgetting)))

    def holds(self, result: Mapping | Result) -> bool:
        """Whether a result of stage evaluate belongs to one of these parts."""
        r = result if isinstance(result, Result) else Result.from_json(result)
        name = set_name(r)
        if r.task == "forgetting":
            return name in short_specs(self.forgetting)
        if r.task not in _OF_PROBES:
            return name in short_specs(self.datasets)
        probes = (short_specs(sets) for sets in self.probes)
        return any(
            (r.train, name) == (train, test) and r.val in (None, val)
            for train, val, test in probes
        )

    def without(self, other: "Parts") -> "Parts":
        return Parts(
            tuple(x for x in self.datasets if x not in other.datasets),
            tuple(x for x in self.probes if x not in other.probes),
            tuple(x for x in self.forgetting if x not in other.forgetting),
        )

    def of(self, specs: Iterable[str]) -> "Parts":
        """The parts that need only these splits."""
        known = set(specs)
        return Parts(
            tuple(x for x in self.datasets if x in known),
            tuple(x for x in self.probes if known.issuperset(x)),
            tuple(x for x in self.forgetting if x in known),
        )

    def __bool__(self) -> bool:
        return bool(self.datasets or self.probes or self.forgetting)


@dataclasses.dataclass(frozen=True)
class Settings:
    """config.datasets and config.evaluate."""

    parts: Parts
    prompts: tuple[str, ...]
    shots: tuple[int, ...]
    shot_seeds: int
    knn_k: int
    gap: bool
    reference: str


def read_settings(config: ConfigDict) -> Settings:
    """The settings. Raises ValueError for a probe that is not (train, val, test)."""
    c = config.evaluate
    for sets in c.probes:
        if isinstance(sets, str) or len(sets) != 3:
            raise ValueError(
                f"config.evaluate.probes has {sets!r}, which is not (train, val, test):"
                " give three datasets for each probe, such as"
                " (('resisc45:train','resisc45:val','resisc45:test'),)"
            )
    return Settings(
        parts=Parts(
            tuple(dict.fromkeys(as_specs(config.datasets))),
            tuple(dict.fromkeys(map(tuple, c.probes))),
            tuple(dict.fromkeys(as_specs(c.get("forgetting", ())))),
        ),
        prompts=tuple(c.prompts),
        shots=tuple(c.shots),
        shot_seeds=c.shot_seeds,
        knn_k=c.knn_k,
        gap=c.gap,
        reference=c.get("reference", ""),
    )
