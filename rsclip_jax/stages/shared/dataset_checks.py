"""A stage's datasets: opened, with checks of their content, and their digests."""

from collections.abc import Iterable, Sequence

from rsclip_jax.data.catalog.prompts import check_worded, fill_templates
from rsclip_jax.data.inspect.statistics import count_labels
from rsclip_jax.data.sources.digests import labels_digest, split_digest
from rsclip_jax.data.types import Dataset, Source
from rsclip_jax.io.texts import first_of
from rsclip_jax.stages.shared.run import Run

LABELLED = ("single", "multi")


ANY_TASK = (*LABELLED, "none", "captions")


def open_as(
    run: Run, setting: str, spec: str, tasks: Sequence[str], *, prompted: bool = True
) -> Source:
    """Opens a source of one of these tasks; errors name the setting.

    prompted: whether the stage makes prompts of the class names.
    """
    try:
        source = run.open(spec)
    except (ValueError, FileNotFoundError) as error:
        raise type(error)(f"{setting}: {error}") from error
    task = source.dataset.task
    if task not in tasks:
        kind = {
            "single": "one label",
            "multi": "several labels",
            "none": "no labels",
            "captions": "captions",
        }
        raise ValueError(
            f"{setting} = {spec!r}: its images have {kind[task]} each, but this stage"
            f" needs {' or '.join(kind[t] for t in tasks)}"
        )
    _check_content(f"{setting} = {spec!r}", source, tasks, prompted)
    return source


def _check_content(
    setting: str, source: Source, tasks: Sequence[str], prompted: bool
) -> None:
    """Raises ValueError for a source without records or with unusable classes."""
    dataset = source.dataset
    if not len(source):
        raise ValueError(f"{setting} has no records; name another split")
    if dataset.task not in LABELLED:
        return
    try:
        fill_templates(dataset.classnames, dataset.templates)
        if prompted:
            check_worded(dataset)
    except ValueError as error:
        raise ValueError(f"{setting}: {error}") from error
    if tuple(tasks) == LABELLED:
        check_classes(setting, dataset)


def check_classes(setting: str, dataset: Dataset) -> None:
    """Raises ValueError for a labelled dataset of one class."""
    if not _can_be_wrong(dataset):
        raise ValueError(
            f"{setting} has one class, {dataset.classnames[0]!r}: at least two classes"
            " are needed to train or measure"
        )


def _can_be_wrong(dataset: Dataset) -> bool:
    """Whether zero-shot answers can be wrong: several classes, or multi-label."""
    return dataset.task == "multi" or (
        dataset.task == "single" and len(dataset.classes) > 1
    )


def warn_of_absent_classes(
    run: Run, stage: str, source: Source, labels, effect: str = "are not measured"
) -> None:
    """Logs the classes without an example in a split's labels, [n] or [n, k].

    effect: the consequence for these classes.
    """
    dataset = source.dataset
    if dataset.task not in LABELLED:
        return
    counts = count_labels(labels, len(dataset.classes))
    absent = [name for name, n in zip(dataset.classnames, counts, strict=True) if not n]
    if absent:
        listed = first_of(absent, most=20)
        run.log(
            f"warning: {stage}: {source.spec} has no example of {len(absent)} of"
            f" {len(counts)} classes ({listed}), which {effect}: use a larger split,"
            " or split lists that give every split some of each class"
        )


def gives_numbers(run: Run, spec: str) -> bool:
    """Whether a split gives numbers even for a model that encodes only one sensor."""
    try:
        dataset = run.open(spec).dataset
    except FileNotFoundError:
        return False
    return dataset.task == "captions" or _can_be_wrong(dataset)


def has_zero_shot(run: Run, stage: str, source: Source) -> bool:
    """Whether zero-shot of a source is measured. Logs if it has only one class."""
    dataset = source.dataset
    if dataset.task in LABELLED and not _can_be_wrong(dataset):
        run.log(
            f"{stage}: {source.spec} has one class, {dataset.classnames[0]!r}: every"
            " answer is right, so zero-shot is skipped"
        )
    return _can_be_wrong(dataset)


def data_digests(sources: Iterable[Source]) -> dict[str, str]:
    """{"name:split" or "name:split:tile": split_digest}, which detects changed data.

    Also {"name:split labels": labels_digest} where labels can change without the ids.
    """
    digests = {}
    for source in sources:
        spec = str(source.spec)
        digests[spec] = split_digest(source)
        if labels := labels_digest(source):
            digests[f"{spec} labels"] = labels
    return digests


def classes_of(source: Source) -> tuple:
    """The task, classes and class names, which define the meaning of labels."""
    dataset = source.dataset
    return dataset.task, dataset.classes, dataset.classnames
