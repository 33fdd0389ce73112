"""Sizes of the bands of a BigEarthNet patch."""

SIDES = {"B01": 20, "B09": 20, "B02": 120, "B03": 120, "B04": 120, "B08": 120}
