"""The tags that give a GeoTIFF its location."""


def geo_tags(pixel=10.0, left=300000.0, top=5000040.0, epsg=32633, tie=(0.0, 0.0)):
    """The tags of a GeoTIFF; tie: the pixel that left and top are of."""
    model, key = (2, 2048) if epsg == 4326 else (1, 3072)
    keys = (1, 1, 0, 3, 1024, 0, 1, model, 1025, 0, 1, 1, key, 0, 1, epsg)
    return [
        (33550, "d", 3, (pixel, pixel, 0.0), True),
        (33922, "d", 6, (*tie, 0.0, left, top, 0.0), True),
        (34735, "H", len(keys), keys, True),
    ]
