"""The size that a file may say it has, checked before a decoder makes room for it."""

import math

from rsclip_jax.data.types import MAX_PIXELS

_BANDS = 16  # of so many bands a pixel counts once: all sensors but hyperspectral ones
_MOST_BANDS = 4096  # GDAL's time grows with the square of their number


class TooLarge(ValueError):
    """A file says that it has more pixels than are allowed."""


def check_pixels(
    height: int, width: int, where: str, limit: int = MAX_PIXELS, bands: int = 1
) -> None:
    """Raises TooLarge for more pixels than the limit, and for more than 4,096 bands.

    A pixel of more than 16 bands counts once for each 16 of them. where: the file's
    name in the error.
    """
    if bands > _MOST_BANDS:
        raise TooLarge(
            f"{where}: says that it has {bands:,} bands, and {_MOST_BANDS:,} are the"
            " most that are read; fetch the file again, or divide its bands"
        )
    if height * width * math.ceil(bands / _BANDS) <= limit:
        return
    of = f" of {bands} bands" if bands > 1 else ""
    raise TooLarge(
        f"{where}: says that it has {height:,} x {width:,} pixels{of}, more than"
        f" max_pixels = {limit:,}: cut it into tiles, or raise max_pixels"
    )
