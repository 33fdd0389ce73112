"""Errors of too little memory: their numbers, as XLA and numpy write them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rsclip_jax.train import memory
from tests.helpers.too_large import too_large

GIB = 2**30
# As the libraries raise them: TPU from libtpu 0.0.42.1's compiler, the others of XLA.
TEXTS = [
    (
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for"
        " HLO temporaries (24.00G) exceeds available HBM (15.75G).",
        (24 * GIB, 15.75 * GIB, None),
    ),
    (
        "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in"
        " memory space hbm. Used 27.50G of 15.75G hbm. Exceeded hbm capacity by 11.7G.",
        (27.5 * GIB, 15.75 * GIB, None),
    ),
    (
        "RESOURCE_EXHAUSTED: Error allocating device buffer: Attempting to allocate"
        " 1.50G. That was not possible. There are 512.00M free.; (0x0x0_HBM0)",
        (1.5 * GIB, None, GIB // 2),
    ),
    (
        "RESOURCE_EXHAUSTED: Attempting to reserve 5.00G at the bottom of memory. That"
        " was not possible. There are 3.25G free, 0B reserved, and 3.25G reservable.",
        (5 * GIB, None, 3.25 * GIB),
    ),
    (
        "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 12884901888 bytes.",
        (12 * GIB, None, None),
    ),
    (
        "RESOURCE_EXHAUSTED: Failed to allocate request for 12.00GiB (12884901888B) on"
        " device ordinal 0",
        (12 * GIB, None, None),
    ),
    ("RESOURCE_EXHAUSTED: Out of memory allocating 4096 bytes.", (4096, None, None)),
]


@pytest.mark.parametrize(("text", "numbers"), TEXTS)
def test_the_numbers_of_each_text_are_read(text, numbers):
    asked, held, free = numbers
    found = memory.measure(jax.errors.JaxRuntimeError(text))
    assert memory.is_shortage(jax.errors.JaxRuntimeError(text))
    assert (found.asked, found.free) == (asked, free)
    assert found.held == (held or memory.host_bytes())  # the CPU's memory is the host's


def test_a_real_shortage_names_the_work_and_what_was_asked():
    with (
        pytest.raises(memory.OutOfMemory) as caught,
        memory.during("step 3 of 9", "training"),
    ):
        jax.block_until_ready(jax.jit(too_large)(jnp.float32(1)))
    assert str(caught.value).startswith("step 3 of 9: 262,144.00 GiB asked for, this ")
    assert caught.value.work == "training"
    assert caught.value.shortage.asked == 2**46 * 4
    assert memory.describe(memory.host_bytes()) in str(caught.value)


def test_a_shortage_of_the_host_is_one_too():
    with (
        pytest.raises(memory.OutOfMemory, match=r"8,388,608.00 GiB asked for"),
        memory.during("encoding a:test", "encoding"),
    ):
        np.empty(2**50)


def test_the_innermost_name_stays_and_other_errors_pass():
    with (
        pytest.raises(memory.OutOfMemory, match=r"^inner: "),
        memory.during("outer", ""),
        memory.during("inner", "training"),
    ):
        raise MemoryError("no room")
    with (
        pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"),
        memory.during("step 1", "training"),
    ):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")
