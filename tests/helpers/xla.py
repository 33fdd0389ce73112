"""XLA's flags in the processes of tests: their fake devices, and how they compile."""

import importlib.metadata
import os

# XLA's older code generation for fusions, in one module: a training step compiles in a
# third of the CPU time. XLA ends a process that gives it a flag that it does not know,
# so only the jaxlib that these were tried with gets them.
QUICK = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"


def flags(devices: int = 1) -> str:
    """For a process with so many devices; quick ones unless all optimisations count."""
    count = f"--xla_force_host_platform_device_count={devices}"
    return f"{count} {quick_flags()}".strip()


def quick_flags() -> str:
    optimised = os.environ.get("JAX_DISABLE_MOST_OPTIMIZATIONS") == "0"
    known = importlib.metadata.version("jaxlib").startswith("0.10.")
    return QUICK if known and not optimised else ""
