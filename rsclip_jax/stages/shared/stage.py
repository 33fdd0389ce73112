"""What main knows of a stage."""

import dataclasses
from collections.abc import Callable

from rsclip_jax.stages.shared.run import Run


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of config.stages.

    check: raises ValueError or FileNotFoundError for what would stop it. is_done:
    whether it has nothing left to do. binds: the sections of the config that must stay
    as they are in a workdir where the stage has begun; () for a stage whose workdir
    any config may use. needs: the settings that it cannot do without, and example: a
    shipped config that has them. resumes: it decides itself which of its earlier
    results stay; the results of others are removed before they run.
    """

    name: str
    check: Callable[[Run], None]
    run: Callable[[Run], None]
    is_done: Callable[[Run], bool]
    binds: tuple[str, ...]
    needs: tuple[str, ...]
    example: str = "configs/align_sar.py"
    resumes: bool = False
