"""Stage pack: writes a dataset's splits as ArrayRecord shards in config.pack.out."""

import functools
from pathlib import Path

from rsclip_jax.data.datasets import get_dataset, open_source
from rsclip_jax.data.open.locate import find_folder
from rsclip_jax.data.pack.plan import COMPRESSIONS
from rsclip_jax.data.pack.team import Team
from rsclip_jax.data.pack.write import pack_source, write_all
from rsclip_jax.data.sources.manifest import pack_folder
from rsclip_jax.data.specs import short_name
from rsclip_jax.data.types import SPLITS, Source
from rsclip_jax.io.commit import git_commit
from rsclip_jax.io.paths import check_local
from rsclip_jax.stages.shared.run import Run
from rsclip_jax.train import processes
from rsclip_jax.version import __version__


def check_pack(run: Run) -> None:
    """Raises ValueError or OSError for anything that would stop this stage."""
    c = run.config.pack
    if not run.config.dataset or not c.out:
        raise ValueError(
            "stage 'pack' needs --config.dataset=NAME and --config.pack.out=DIR (and"
            " --config.data_root, where the dataset is read from files)"
        )
    check_local(c.out, "config.pack.out")
    if c.compression not in COMPRESSIONS:
        raise ValueError(
            f"config.pack.compression = {c.compression!r} is not known; use"
            f" {', '.join(COMPRESSIONS)}"
        )
    for name in ("workers", "shard_mb"):
        if c[name] <= 0:
            raise ValueError(f"config.pack.{name} = {c[name]} must be more than 0")
    check_splits(run)
    root = run.config.data_root
    if root and Path(c.out).resolve() == Path(root).resolve():
        raise ValueError(
            f"config.pack.out = {c.out} is config.data_root, where"
            f" {short_name(run.config.dataset)}/ may be the archive: choose another"
            " folder"
        )
    check_folders(run)


def check_folders(run: Run) -> None:
    """Raises ValueError if the pack and its archive would share a folder.

    A pack's folders have the names of splits, so they would be read as the archive's.
    """
    c = run.config
    dataset = get_dataset(c.dataset, c.data_root, packed=False)
    if dataset.kind == "miniature":
        return
    theirs = find_folder(dataset, c.data_root).resolve()
    ours = pack_folder(c.pack.out, dataset.name).resolve()
    if ours.is_relative_to(theirs) or theirs.is_relative_to(ours):
        raise ValueError(
            f"the pack would be in {ours}, and the archive is in {theirs}: one would be"
            " read as part of the other; choose another folder than --config.pack.out="
            f"{c.pack.out}"
        )


def check_splits(run: Run) -> None:
    """Opens all splits of the archive; the error explains how to omit one."""
    splits = tuple(run.config.pack.splits)
    if not splits or not set(splits) <= set(SPLITS):
        raise ValueError(
            f"config.pack.splits = {splits}: name some of {', '.join(SPLITS)}; 'all'"
            " and parts such as 'train[:90%]' are then read from them"
        )
    for split in splits:
        try:
            archive(run, split)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{error}; name the splits to pack, such as"
                " --config.pack.splits=\"('train','val')\""
            ) from error


def run_pack(run: Run) -> None:
    """Packs each split that is not packed yet, then writes the order of split all."""
    c, name = run.config.pack, short_name(run.config.dataset)
    folder = pack_folder(c.out, name)
    who = processes.index(), processes.count()
    team = Team(*who, processes.first_decides, processes.wait_for_all)
    for split in c.splits:
        source = archive(run, split)
        packed = pack_source(
            source,
            opener(run, split),
            folder / split,
            half=half_of(run, split) if processes.is_first() else None,
            provenance=provenance(run),
            shard_mb=c.shard_mb,
            compression=c.compression,
            on_error=run.config.data.on_error,
            workers=c.workers,
            progress=run.config.progress and processes.is_first(),
            team=team,
        )
        if processes.is_first():
            run.log(f"pack: {name}:{split} {summary(folder / split, packed)}")
    if not processes.is_first():
        return
    if not write_all(archive(run, "all"), half_of(run, "all"), folder):
        run.log(f"pack: {name}:all cannot be read: not all of its splits are packed")
    run.log(f"pack: read it with --config.data_root={c.out}")


def summary(folder: Path, packed: bool) -> str:
    """A line about a packed split."""
    size = sum(path.stat().st_size for path in folder.glob("*.array_record"))
    count = (folder / "ids.txt").read_text().count("\n")
    skipped = folder / "skipped.txt"
    unreadable = skipped.read_text().count("\n") if skipped.exists() else 0
    text = f"{count:,} records, {size / 1e6:,.1f} MB in {folder}"
    if unreadable:
        text += f"; {unreadable:,} skipped, listed in {skipped}"
    return text if packed else f"already packed: {text}"


def archive(run: Run, split: str) -> Source:
    """The archive's split, opened once."""
    key = f"{run.config.dataset}:{split} of the archive"
    if key not in run.opened:
        run.opened[key] = opener(run, split)()
    return run.opened[key]


def opener(run: Run, split: str) -> functools.partial:
    """A function that opens the archive's split in any process."""
    c = run.config
    return functools.partial(
        open_source,
        c.dataset,
        c.data_root,
        split,
        on_error=c.data.on_error,
        max_nodata=c.data.max_nodata,
        max_pixels=c.data.max_pixels,
        packed=False,
    )


def half_of(run: Run, split: str) -> list[str] | None:
    """The ids of the first half by hash; None if the archive cannot be divided."""
    try:
        return opener(run, f"{split}[:50%]")().ids
    except ValueError:
        return None
    except FileNotFoundError:  # a small split can have an empty half
        return []


def provenance(run: Run) -> dict:
    """The origin of a pack: the archive's folder and the package's version."""
    root = run.config.data_root
    dataset = get_dataset(run.config.dataset, root, packed=False)
    return {
        "source": ""
        if dataset.kind == "miniature"
        else find_folder(dataset, root).name,
        "version": __version__,
        "git_commit": git_commit(),
    }
