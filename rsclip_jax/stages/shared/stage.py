"""The interface between main and a stage."""

import dataclasses
from collections.abc import Callable

from rsclip_jax.stages.shared.job import Needs
from rsclip_jax.stages.shared.run import Run


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of config.stages.

    check: raises ValueError or FileNotFoundError for anything that would stop the
    stage. is_done: whether nothing is left to do. binds: the sections of the config
    that may not change in a workdir where the stage has begun; () if all may change.
    needs: the settings that the stage requires; example: a shipped config with them.
    resumes: whether the stage itself keeps its valid earlier results; those of other
    stages are removed before they run. needs_of: what it will do, for a plan; None for
    a stage that a plan leaves out.
    """

    name: str
    check: Callable[[Run], None]
    run: Callable[[Run], None]
    is_done: Callable[[Run], bool]
    binds: tuple[str, ...]
    needs: tuple[str, ...]
    example: str = "configs/align_sar.py"
    resumes: bool = False
    needs_of: Callable[[Run], Needs] | None = None
