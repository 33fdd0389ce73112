"""Tells backscatter in decibels from radar in other units, by the distribution."""

import numpy as np

from rsclip_jax.data.sensors import Sensor

# Medians of land and sea lie between -35 and -3 dB. Values of power, of amplitude and
# of dB / 10 lie closer to 0, and have a narrow range.
_LOWEST, _MEDIAN, _RANGE = -60.0, -3.5, 4.0
_POSITIVE = -0.3  # no median of dB / 10 is above it
_NEGATIVE = 0.05  # the share that resampling of a positive image may leave below 0
_NUMBERS = 20.0  # a median of digital numbers, above any of power or amplitude


def check_decibels(array: np.ndarray, sensor: Sensor, where: str) -> None:
    """Raises ValueError for pixels [n, bands] that cannot be in dB.

    array: some pixels of an image, without missing ones. The error says which unit they
    look like, and the conversion to dB.
    """
    some = array.astype(np.float64)
    median = np.median(some)
    if _LOWEST <= median <= _MEDIAN:
        return
    # 0 in all bands is outside the swath in files that do not say so
    some = some[some.any(axis=-1)] if some.any() else some
    unit, way = _unit_of(some)
    if not unit:
        return
    if unit == "linear":
        unit, way = _linear(some, sensor)
    scaled = f" ({way} for {sensor.modality} in the dataset's file converts them)"
    way = scaled if way.startswith("scale") else f"; {way}"
    raise ValueError(
        f"{where}: the median of the {sensor.name} values is {np.median(some):.4g} and"
        f" {100 * (some > 0).mean():.3g} % are above 0 dB, so this looks like {unit},"
        f" not like dB{way}"
    )


def _unit_of(some: np.ndarray) -> tuple[str, str]:
    """(the unit that pixels [n, bands] look like, the way to dB); ("", "") for dB."""
    median, below = np.median(some), (some < 0).mean()
    if median < _LOWEST:
        if (some == median).mean() > 0.5:
            return f"a nodata value of {median:g}", "state it in the file's tags"
        factor = 10 if median > 100 * _MEDIAN else 100
        return f"dB * {factor}", f"scale = {1 / factor:g}"
    low, high = np.quantile(some, (0.05, 0.95))
    is_wide = high - low > _RANGE
    if median <= _MEDIAN or (is_wide and below > _NEGATIVE):  # or a city in dB
        return "", ""
    if median >= _NUMBERS:
        way = "calibrate them, or give the scale and offset that make dB of them"
        return "digital numbers", f"{way} in the dataset's file"
    if median <= _POSITIVE:
        return "dB / 10", "scale = 10"
    return "linear", ""


def _linear(some: np.ndarray, sensor: Sensor) -> tuple[str, str]:
    """Power or amplitude: the one that becomes the sensor's usual values in dB."""
    typical = np.array(sensor.mean or (-15.0,) * len(sensor.bands))
    logs = np.zeros(len(typical))
    for i, band in enumerate(some.T):
        if (band > 0).any():
            logs[i] = np.median(np.log10(band[band > 0]))
    factors = {"power": 10, "amplitude": 20}
    off = {k: np.abs(factor * logs - typical).sum() for k, factor in factors.items()}
    name = min(off, key=lambda k: off[k])
    medians = ", ".join(f"{factors[name] * log:.3g}" for log in logs)
    return f"linear {name}", (
        f"convert it with {factors[name]} * log10(x), which gives medians of {medians}"
        " dB; 0 and below becomes NaN"
    )
