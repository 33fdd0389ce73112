"""How models compute: number format, recomputation, loop over layers, attention.

Whatever is chosen, params, LayerNorm, softmax, batch statistics, sums of products and
the features that a tower returns are float32.
"""

import dataclasses
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

DTYPES = ("float32", "bfloat16")
REMATS = ("none", "dots", "block")
ATTENTIONS = ("auto", "xla", "cudnn")
LAYOUTS = ("rows", "tiles")
_PRODUCT = "product"  # the name under which "dots" keeps a layer's output


@dataclasses.dataclass(frozen=True)
class Compute:
    """How a tower computes; hashable, so that jit takes it as a static argument.

    dtype: of matrix products, convolutions and the activations between them. In
      float32 products have full precision, which TPUs and GPUs otherwise shorten to
      bfloat16 or TF32.
    remat: what the backward pass computes again to save memory: "none"; "dots" all but
      the outputs of dense layers and convolutions; "block" all but each block's input.
    scan: loop over a transformer's layers in one compiled body, which compiles faster;
      on CPU the program is slower. A ResNet's blocks differ, and stay unrolled.
    attention: "xla"; "cudnn", NVIDIA's fused kernel, for bfloat16 on a GPU; "auto",
      which is "xla" until a measurement on a GPU says otherwise.
    layout: the form of a transformer's blocks, equal up to rounding: "rows", or
      "tiles", which is faster on a TPU and slower elsewhere; see layout_of.

    Raises ValueError for an unknown value.
    """

    dtype: str = "float32"
    remat: str = "none"
    scan: bool = False
    attention: str = "auto"
    layout: str = "rows"

    def __post_init__(self):
        known = {"dtype": DTYPES, "remat": REMATS, "attention": ATTENTIONS}
        known["layout"] = LAYOUTS
        for name, values in known.items():
            if (value := getattr(self, name)) not in values:
                raise ValueError(f"{name} = {value!r}: use one of {', '.join(values)}")

    @property
    def precision(self) -> jax.lax.Precision:
        """The precision of matrix products, independent of jax's own setting."""
        full = self.dtype == "float32"
        return jax.lax.Precision.HIGHEST if full else jax.lax.Precision.DEFAULT

    def cast(self, x: jax.Array) -> jax.Array:
        """An activation in the format that layers exchange."""
        return x.astype(self.dtype)

    def dot(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        """x [..., d] @ kernel [d, k], summed in float32."""
        if self.dtype == "bfloat16":
            return _bfloat16_dot(x, kernel)
        return _dot(x, kernel.astype(jnp.float32), precision=self.precision)

    def recomputed(self, block: Callable) -> Callable:
        """A function of arrays, or a module class, that recomputes by the policy."""
        if self.remat == "none":
            return block
        policy = None
        if self.remat == "dots":
            policy = jax.checkpoint_policies.save_only_these_names(_PRODUCT)
        wrap = nn.remat if isinstance(block, type) else jax.checkpoint
        # the barrier against merging with the forward pass is not needed in a loop
        return wrap(block, policy=policy, prevent_cse=not self.scan)


FLOAT32 = Compute()


def layout_of(platform: str) -> str:
    """The layout of blocks that is the faster one on a platform, such as "tpu"."""
    return "tiles" if platform == "tpu" else "rows"


def compute_here(dtype: str) -> Compute:
    """How to compute in this number format on the devices at hand."""
    return Compute(dtype, layout=layout_of(jax.default_backend()))


def check_attention(compute: Compute, platform: str) -> None:
    """Raises ValueError if cuDNN's attention cannot run there."""
    found = (compute.attention, platform, compute.dtype)
    if compute.attention == "cudnn" and found != ("cudnn", "gpu", "bfloat16"):
        raise ValueError(
            f"attention = 'cudnn' needs bfloat16 on a GPU, not {compute.dtype} on"
            f" {platform}: use 'auto'"
        )


def keep_product(x: jax.Array) -> jax.Array:
    """Marks a layer's output, which remat "dots" keeps."""
    return checkpoint_name(x, _PRODUCT)


def _dot(x: jax.Array, kernel: jax.Array, **options) -> jax.Array:
    contracted = ((x.ndim - 1,), (0,)), ((), ())
    return jax.lax.dot_general(x, kernel, contracted, **options)


@jax.custom_vjp
def _bfloat16_dot(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """x @ kernel of bfloat16 factors, in float32.

    A kernel's gradient has the kernel's dtype before devices add their parts of it:
    jax's own would be rounded to bfloat16 first.
    """
    return _bfloat16_dot_fwd(x, kernel)[0]


def _bfloat16_dot_fwd(x, kernel):
    small = x.astype(jnp.bfloat16)
    options = {
        "precision": jax.lax.Precision.DEFAULT,
        "preferred_element_type": jnp.float32,
    }
    y = _dot(small, kernel.astype(jnp.bfloat16), **options)
    return y, (small, kernel, jnp.zeros((), x.dtype))


def _bfloat16_dot_bwd(residuals, g):
    x, kernel, like = residuals
    g, default = g.astype(jnp.bfloat16), jax.lax.Precision.DEFAULT
    dx = _dot(
        g,
        kernel.astype(jnp.bfloat16).T,
        precision=default,
        preferred_element_type=jnp.float32,
    )
    rows: Sequence[int] = tuple(range(x.ndim - 1))
    dkernel = jax.lax.dot_general(
        x,
        g,
        ((rows, rows), ((), ())),
        precision=default,
        preferred_element_type=kernel.dtype,
    )
    return dx.astype(like.dtype), dkernel


_bfloat16_dot.defvjp(_bfloat16_dot_fwd, _bfloat16_dot_bwd)


class Dense(nn.Module):
    """x [..., d] @ kernel + bias, with flax.linen.Dense's parameters."""

    features: int
    kernel_init: nn.initializers.Initializer
    use_bias: bool = True
    compute: Compute = FLOAT32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (x.shape[-1], self.features)
        y = self.compute.dot(x, self.param("kernel", self.kernel_init, shape))
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            y = y + bias.reshape((1,) * (y.ndim - 1) + (-1,))
        return keep_product(self.compute.cast(y))
