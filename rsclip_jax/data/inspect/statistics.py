"""Statistics of records' values, labels, captions and ids. Pure."""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from rsclip_jax.data.sensors import Sensor
from rsclip_jax.data.tokenizer import count_tokens

# Values outside these ranges are damaged or in another unit. 30,000 DN is a reflectance
# of 3, which only mirrors and fires exceed.
_PLAUSIBLE = {"DN": (0, 30000), "reflectance": (0, 3), "dB": (-80, 40), "K": (150, 400)}


@dataclasses.dataclass(frozen=True)
class Moments:
    """Counts and moments of each band's values, all [c].

    low, high, mean and squares are float64 and over the values that are there; without
    any they are inf, -inf, 0 and 0.
    """

    total: np.ndarray  # number of values
    finite: np.ndarray  # number of those that are there: finite and not missing
    nan: np.ndarray  # number of those that are NaN or infinite
    nodata: np.ndarray  # number of zeros, Sentinel products' value outside the swath
    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray
    squares: np.ndarray  # sum of squared distances from the mean

    def rows(self, bands: Sequence[str]) -> list[dict]:
        """A dict per band: band, min, mean, max, std, nan, missing and nodata.

        nan, missing (without NaN) and nodata are shares from 0 to 1. The others are
        None for a band without a value.
        """
        out = []
        for i, band in enumerate(bands):
            values: dict = dict.fromkeys(("min", "mean", "max", "std"))
            if self.finite[i]:
                deviation = np.sqrt(self.squares[i] / self.finite[i])
                found = (self.low[i], self.mean[i], self.high[i], deviation)
                values = dict(zip(values, map(float, found), strict=True))
            values["nan"] = float(self.nan[i] / self.total[i])
            missing = self.total[i] - self.finite[i] - self.nan[i]
            values["missing"] = float(missing / self.total[i])
            values["nodata"] = float(self.nodata[i] / self.total[i])
            out.append({"band": band, **values})
        return out


def measure(array: np.ndarray, missing: np.ndarray | None = None) -> Moments:
    """Moments of the bands of an array [h, w, c], which is not empty.

    missing: bool [h, w, c], values to leave out.
    """
    # with bands contiguous in memory, sums are many times faster, and pairwise
    flat = array.reshape(-1, array.shape[-1]).T
    x = np.ascontiguousarray(flat, np.float64)
    good = np.isfinite(x)
    nan = x.shape[1] - good.sum(1)
    if missing is not None:
        good &= ~missing.reshape(flat.T.shape).T
    finite = good.sum(1)
    everything = bool(good.all())

    def or_else(value: float, of: np.ndarray) -> np.ndarray:
        return of if everything else np.where(good, of, value)

    mean = or_else(0, x).sum(1) / np.maximum(finite, 1)
    return Moments(
        total=np.full(len(x), x.shape[1]),
        finite=finite,
        nan=nan,
        nodata=(x == 0).sum(1),
        low=or_else(np.inf, x).min(1),
        high=or_else(-np.inf, x).max(1),
        mean=mean,
        squares=(or_else(0, x - mean[:, None]) ** 2).sum(1),
    )


def merge(a: Moments, b: Moments) -> Moments:
    """Moments of both together (Chan, Golub and LeVeque 1979), in any order.

    Exact up to float64 rounding, without the cancellation of sums of squares.
    """
    finite = a.finite + b.finite
    share = b.finite / np.maximum(finite, 1)
    apart = b.mean - a.mean
    return Moments(
        total=a.total + b.total,
        finite=finite,
        nan=a.nan + b.nan,
        nodata=a.nodata + b.nodata,
        low=np.minimum(a.low, b.low),
        high=np.maximum(a.high, b.high),
        mean=a.mean + apart * share,
        squares=a.squares + b.squares + apart**2 * a.finite * share,
    )


def find_oddities(
    sensor: Sensor, rows: Sequence[dict], *, is_raised: bool = False
) -> list[str]:
    """Descriptions of what is unusual for a sensor; rows: as Moments.rows gives.

    is_raised: whether DN are known to be too high, so that a bright cirrus band says
    nothing.
    """
    known = [row for row in rows if row["min"] is not None]
    found = [f"{row['band']} holds no finite value" for row in rows if row not in known]
    if lost := max((row["missing"] for row in rows), default=0):
        found.append(f"{100 * lost:.2g} % of the pixels are missing, and left out here")
    for row in known:
        band, low, high = row["band"], row["min"], row["max"]
        if low == high:
            found.append(f"{band} is constant: every value is {low:g}")
        if row["nan"]:
            found.append(f"{100 * row['nan']:.2g} % of {band} are NaN or infinite")
        if row["nodata"] > 0.5 and low < high and sensor.unit != "8-bit":
            found.append(f"{100 * row['nodata']:.0f} % of {band} are 0, likely nodata")
        least, most = _PLAUSIBLE.get(sensor.unit, (-np.inf, np.inf))
        if low < least or high > most:
            found.append(
                f"{band} has values from {low:g} to {high:g}, expected between"
                f" {least:g} and {most:g} {sensor.unit}"
            )
    order = [] if is_raised else _order_oddities(known)
    return found + _unit_oddities(sensor, known) + order


def _unit_oddities(sensor: Sensor, rows: Sequence[dict]) -> list[str]:
    if not rows:
        return []
    high = max(r["max"] for r in rows)
    if sensor.unit == "DN" and high <= 255:
        return [
            "no value is above 255: is this an 8-bit image in a 16-bit file? Expected"
            " is reflectance * 10000"
        ]
    if sensor.unit == "8-bit" and high <= 1:
        return ["no value is above 1: was it scaled to [0, 1] before it was saved?"]
    return []


def _order_oddities(rows: Sequence[dict]) -> list[str]:
    """Finds a bright B10: Sentinel-2's cirrus band sees no ground and is dark."""
    means = {row["band"]: row["mean"] for row in rows}
    if "B10" not in means:
        return []
    typical = np.median(list(means.values()))
    if means["B10"] <= typical / 2:
        return []
    return [
        f"B10 (cirrus, mean {means['B10']:.0f}) is about as bright as the other bands"
        f" (median {typical:.0f}): are the bands in another order in the files?"
    ]


def count_labels(labels: Iterable, classes: int) -> np.ndarray:
    """The number of examples of each class, int64 [classes]; -1 is not counted."""
    counts = np.zeros(classes, np.int64)
    for label in labels:
        if np.ndim(label):
            counts += np.asarray(label, np.int64)
        elif label >= 0:
            counts[label] += 1
    return counts


def describe_captions(captions: Sequence[Sequence[str]], length: int) -> dict:
    """Counts over the captions of each image.

    an_image and different_an_image: {number of captions: number of images}; the second
    counts an image's repeated captions once. cut: captions of more than `length`
    tokens. shared: distinct captions that more than one image has.
    """
    texts = Counter(text for of_one in captions for text in of_one)
    images = Counter(text for of_one in captions for text in set(of_one))
    tokens = dict(zip(texts, count_tokens(list(texts)).tolist(), strict=True))
    total = sum(texts.values())
    return {
        "captions": total,
        "different": len(texts),
        "an_image": _counts(len(of_one) for of_one in captions),
        "different_an_image": _counts(len(set(of_one)) for of_one in captions),
        "mean_tokens": sum(tokens[t] * n for t, n in texts.items()) / max(total, 1),
        "most_tokens": max(tokens.values(), default=0),
        "cut": sum(n for t, n in texts.items() if tokens[t] > length),
        "shared": sum(n > 1 for n in images.values()),
    }


def _counts(values: Iterable[int]) -> dict[str, int]:
    return {str(value): n for value, n in sorted(Counter(values).items())}


def array_digest(array: np.ndarray) -> str:
    """sha256 of dtype, shape and bytes, equal only for equal arrays."""
    head = f"{array.dtype.str}{array.shape}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).hexdigest()


def find_repeats(names: Mapping[str, Sequence[str]]) -> list[dict[str, list[int]]]:
    """For each name that occurs more than once its indices, {split: [index, ...]}.

    names: {split: its records' ids or digests}. In order of appearance.
    """
    indices: dict[str, dict[str, list[int]]] = {}
    for split, values in names.items():
        for i, value in enumerate(values):
            indices.setdefault(value, {}).setdefault(split, []).append(i)
    return [found for found in indices.values() if sum(map(len, found.values())) > 1]
