"""Examples whose sensors, bands or labels differ between sources and records."""

import dataclasses

import numpy as np
import pytest

from rsclip_jax.data.sensors import get_sensor
from tests.helpers.moved import write_sensor
from tests.helpers.numbered import FULL, Pictures, assert_same, batches_of, take


class Lacking(Pictures):
    """Pictures with these sensors; some records lack those in gaps."""

    def __init__(self, n, sensors, gaps=(), task="single"):
        super().__init__(n)
        self.dataset = dataclasses.replace(
            self.dataset, sensors={"rgb": "rgb", **sensors}, task=task
        )
        self.gaps = gaps

    def __getitem__(self, index):
        rng, record = np.random.default_rng(index), super().__getitem__(index)
        del record["s1"]
        if self.dataset.task == "multi":
            record["label"] = np.eye(3, dtype=np.uint8)[record["label"]]
        for key, name in self.dataset.sensors.items():
            bands = get_sensor(name).bands
            if key == "s2":  # its values are its bands' numbers
                values = [100 * L1C.index(band) + 1 for band in bands]
                record[key] = np.broadcast_to(values, (12, 12, len(bands))).astype(
                    np.uint16
                )
            elif key == "s1":
                record[key] = rng.normal(-12, 5, (12, 12, 2)).astype(np.float32)
            if key in self.gaps and index % 2:
                del record[key]
        return record


L1C = get_sensor("s2_l1c").bands
OF_TWO = {"rgb": 6, "s1": 6, "s2": 6}
SEEN = {"s1": get_sensor("s1_grd"), "s2": get_sensor("s2_l1c")}


def of_two(*sources, **options):
    told = {"sizes": OF_TWO, "sensors": SEEN, "optional": ("s1", "s2"), **options}
    return batches_of(*sources, batch_size=16, **told)


def test_a_dataset_without_a_sensor_gives_zeros_and_has_is_false():
    with_both = Lacking(16, {"s1": "s1_grd", "s2": "s2_l1c"})
    with_one = Lacking(16, {"s2": "s2_l1c"})
    batches = take(4, of_two(with_both, with_one, augment=FULL))
    has = np.concatenate([b["has_s1"] for b in batches])
    assert has.dtype == bool
    assert 16 < has.sum() < 48
    for batch in batches:
        assert batch["s1"].dtype == np.float32
        reached = np.abs(batch["s1"]).max(axis=(1, 2, 3)) > 0
        np.testing.assert_array_equal(reached, batch["has_s1"])
        assert batch["has_s2"].all()
        assert batch["label"].shape == (16,)
    assert_same(batches, take(4, of_two(with_both, with_one, augment=FULL, threads=1)))


def test_records_of_one_dataset_may_lack_a_sensor():
    source = Lacking(32, {"s1": "s1_grd", "s2": "s2_l1c"}, gaps=("s1", "s2"))
    for batch in take(2, of_two(source)):
        assert 0 < batch["has_s1"].sum() < 16
        for key in ("s1", "s2"):
            reached = np.abs(batch[key]).max(axis=(1, 2, 3)) > 0
            np.testing.assert_array_equal(reached, batch[f"has_{key}"])
    with pytest.raises(ValueError, match="this record has no s1"):  # it has to be there
        take(2, of_two(source, optional=("s2",)))


def test_bands_in_another_order_are_moved_by_name(tmp_path):
    sensor = get_sensor("s2_l1c")
    turned = write_sensor(tmp_path / "turned.toml", sensor, bands=sensor.bands[::-1])
    fewer = write_sensor(tmp_path / "fewer.toml", sensor, bands=sensor.bands[:5])
    batch = next(of_two(Lacking(16, {"s2": turned})))
    want = [100 * i + 1 for i in range(13)]
    np.testing.assert_array_equal(batch["s2"][:, 0, 0], np.tile(want, (16, 1)))
    with pytest.raises(ValueError, match="takes the bands"):
        next(of_two(Lacking(16, {"s2": fewer})))


def test_labels_of_different_shapes_are_left_out():
    one = Lacking(16, {"s1": "s1_grd"})
    several = Lacking(16, {"s2": "s2_l1c"}, task="multi")
    assert "label" not in next(of_two(one, several))
    assert next(of_two(several))["label"].shape == (16, 3)
