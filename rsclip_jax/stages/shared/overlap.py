"""Checks that a stage's training, validation and test datasets fit together."""

import itertools
from collections.abc import Mapping, Sequence

from rsclip_jax.data.types import Source
from rsclip_jax.stages.shared.run import Run

# setting of config.<stage> -> its specs
Specs = Mapping[str, Sequence[str]]


def shared_ids(one: Source, other: Source) -> list[str]:
    """The ids that two splits of a dataset share; a tile counts as its image."""
    if one.dataset.name != other.dataset.name:
        return []
    first, second = ({i.partition("/tile_")[0] for i in s.ids} for s in (one, other))
    return sorted(first & second)


def check_apart(run: Run, stage: str, *roles: Specs) -> None:
    """Raises ValueError naming records that datasets of two roles share.

    roles: the datasets to train on, to choose on, to report on. Datasets of one role
    may share records.
    """
    for one, other in itertools.combinations(roles, 2):
        for (name, a), (other_name, b) in itertools.product(_each(one), _each(other)):
            if not (ids := shared_ids(run.open(a), run.open(b))):
                continue
            shown = ", ".join(ids[:3]) + (", ..." if len(ids) > 3 else "")
            raise ValueError(
                f"config.{stage}.{name} = {a!r} and config.{stage}.{other_name} ="
                f" {b!r} share {len(ids)} records ({shown}), so results on the second"
                " would not be on new images: name other splits, or parts such as"
                " 'train[:90%]' and 'train[90%:]', or allow it:"
                f" --config.{stage}.allow_shared=True"
            )


def _each(specs: Specs) -> list[tuple[str, str]]:
    return [(name, spec) for name, each in specs.items() for spec in each]


def check_same_dataset(
    run: Run, stage: str, train: Sequence[str], others: Specs
) -> None:
    """Raises ValueError unless each setting names a dataset that is trained on.

    Setting only train would leave the others at the config's defaults.
    """
    trained = {run.open(spec).dataset.name for spec in train}
    wrong = {
        name: specs
        for name, specs in others.items()
        if specs and trained.isdisjoint(run.open(s).dataset.name for s in specs)
    }
    if not wrong:
        return
    told = " and ".join(f"config.{stage}.{n} = {_show(s)}" for n, s in wrong.items())
    names = ", ".join(f"config.{stage}.{name}" for name in ("train", *others))
    raise ValueError(
        f"config.{stage}.train = {_show(train)}, but {told} is of another dataset:"
        f" set all of {names}, or allow it: --config.{stage}.allow_other_data=True"
    )


def _show(specs: Sequence[str]) -> str:
    return repr(specs[0] if len(specs) == 1 else tuple(specs))
