"""Whether the datasets of a stage are apart where they must be, and of one kind."""

import itertools
from collections.abc import Mapping, Sequence

from rsclip_jax.data.types import Source
from rsclip_jax.stages.shared.run import Run

# setting of config.<stage> -> its specs
Specs = Mapping[str, Sequence[str]]


def shared_ids(one: Source, other: Source) -> list[str]:
    """The ids that two splits of a dataset have in common; of tiles the image's id."""
    if one.dataset.name != other.dataset.name:
        return []
    first, second = ({i.partition("/tile_")[0] for i in s.ids} for s in (one, other))
    return sorted(first & second)


def check_apart(run: Run, stage: str, *roles: Specs) -> None:
    """Raises ValueError if datasets of two roles share records, and names some.

    roles: what is trained on, chosen on, reported on. The datasets of one role may
    share records.
    """
    for one, other in itertools.combinations(roles, 2):
        for (name, a), (other_name, b) in itertools.product(_each(one), _each(other)):
            if not (ids := shared_ids(run.open(a), run.open(b))):
                continue
            shown = ", ".join(ids[:3]) + (", ..." if len(ids) > 3 else "")
            raise ValueError(
                f"config.{stage}.{name} = {a!r} and config.{stage}.{other_name} ="
                f" {b!r} share {len(ids)} records ({shown}), so a value on the second"
                " says nothing about new images: name other splits, or parts such as"
                f" 'train[:90%]' and 'train[90%:]'; --config.{stage}.allow_shared=True"
                " runs it all the same"
            )


def _each(specs: Specs) -> list[tuple[str, str]]:
    return [(name, spec) for name, each in specs.items() for spec in each]


def check_same_dataset(
    run: Run, stage: str, train: Sequence[str], others: Specs
) -> None:
    """Raises ValueError unless each setting has a dataset that is trained on.

    Naming train alone would leave the others at the config's own data.
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
        f" name all of {names}; --config.{stage}.allow_other_data=True runs it all the"
        " same"
    )


def _show(specs: Sequence[str]) -> str:
    return repr(specs[0] if len(specs) == 1 else tuple(specs))
