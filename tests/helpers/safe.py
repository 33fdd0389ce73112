"""Copernicus products in their public layout, at toy size."""

import numpy as np

from rsclip_jax.data.sensors import SENSORS
from tests.helpers.geotiffs import north_up, write_by_gdal

L1C = SENSORS["s2_l1c"]
METRES = dict(zip(L1C.bands, map(int, L1C.resolution), strict=True))
LEFT, TOP, EPSG = 600000.0, 5000040.0, 32632
_LOSSLESS = {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES"}
_PRODUCTS = {
    "L1C": "S2B_MSIL1C_20240607T101559_N{baseline}_R065_T32TNS_20240607T141516",
    "L2A": "S2B_MSIL2A_20240607T101559_N{baseline}_R065_T32TNS_20240607T141516",
}


def write_jp2(path, array, metres):
    """Writes [h, w] as ESA's JPEG 2000 files are: lossless, without nodata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    place = {"crs": f"EPSG:{EPSG}", "transform": north_up(LEFT, TOP, float(metres))}
    return write_by_gdal(path, array, **_LOSSLESS, **place)


def draw_bands(side=120, low=1, high=9000, seed=0):
    """{band: [h, w]} in the sizes of their resolutions; side: at 10 m."""
    rng = np.random.default_rng(seed)
    sizes = {band: side * 10 // metres for band, metres in METRES.items()}
    return {
        band: rng.integers(low, high, (size, size)).astype(np.uint16)
        for band, size in sizes.items()
    }


def write_s2(
    root, level, bands, *, offsets=-1000, step=10000, baseline="0510", scl=None
):
    """Writes a Sentinel-2 product; returns its folder.

    bands: {band: [h, w]}. offsets: one for all bands, {band: offset}, or None for a
    product of before 2022. scl: [h, w] at 20 m.
    """
    folder = root / (_PRODUCTS[level].format(baseline=baseline) + ".SAFE")
    granule = f"GRANULE/{level}_T32TNS_A037888_20240607T101736/IMG_DATA/"
    stem = "T32TNS_20240607T101559_"
    images = {}
    for band, array in bands.items():
        if level == "L1C":
            images[f"{granule}{stem}{band}"] = array, METRES[band]
        elif band != "B10":
            for metres in (10, 20, 60):  # L2A has bands at coarser resolutions, too
                if metres < METRES[band]:
                    continue
                part = array[:: metres // METRES[band], :: metres // METRES[band]]
                name = f"{granule}R{metres}m/{stem}{band}_{metres}m"
                images[name] = part, metres
    if scl is not None:
        images[f"{granule}R20m/{stem}SCL_20m"] = scl, 20
    for name, (array, metres) in images.items():
        write_jp2(folder / f"{name}.jp2", array, metres)
    text = _metadata(level, list(images), offsets, step, baseline)
    (folder / f"MTD_MSI{level}.xml").write_text(text)
    return folder


def _metadata(level, images, offsets, step, baseline):
    """The elements of MTD_MSIL1C.xml or MTD_MSIL2A.xml that say what pixels mean."""
    files = "".join(f"<IMAGE_FILE>{name}</IMAGE_FILE>" for name in images)
    quantified = f"<QUANTIFICATION_VALUE unit='none'>{step}</QUANTIFICATION_VALUE>"
    tag, outer = "RADIO_ADD_OFFSET", "Radiometric_Offset_List"
    if level == "L2A":
        quantified = (
            "<QUANTIFICATION_VALUES_LIST><BOA_QUANTIFICATION_VALUE unit='none'>"
            f"{step}</BOA_QUANTIFICATION_VALUE><AOT_QUANTIFICATION_VALUE unit='none'>"
            "1000.0</AOT_QUANTIFICATION_VALUE></QUANTIFICATION_VALUES_LIST>"
        )
        tag, outer = "BOA_ADD_OFFSET", "BOA_ADD_OFFSET_VALUES_LIST"
    added = ""
    if offsets is not None:
        each = offsets if isinstance(offsets, dict) else dict.fromkeys(METRES, offsets)
        added = (
            f"<{outer}>"
            + "".join(
                f'<{tag} band_id="{i}">{each[band]}</{tag}>'
                for i, band in enumerate(METRES)
            )
            + f"</{outer}>"
        )
    spectral = "".join(
        f'<Spectral_Information bandId="{i}" physicalBand="{band.replace("B0", "B")}"/>'
        for i, band in enumerate(METRES)
    )
    schema = (
        f"https://psd-15.sentinel2.eo.esa.int/PSD/User_Product_Level-{level[1:]}.xsd"
    )
    return f"""<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<n1:Level-{level[1:]}_User_Product xmlns:n1="{schema}">
<n1:General_Info><Product_Info><PROCESSING_LEVEL>Level-{level[1:]}</PROCESSING_LEVEL>
<PROCESSING_BASELINE>{baseline[:2]}.{baseline[2:]}</PROCESSING_BASELINE>
<Product_Organisation><Granule_List><Granule>{files}</Granule></Granule_List>
</Product_Organisation></Product_Info>
<Product_Image_Characteristics><Special_Values><SPECIAL_VALUE_TEXT>NODATA
</SPECIAL_VALUE_TEXT><SPECIAL_VALUE_INDEX>0</SPECIAL_VALUE_INDEX></Special_Values>
{quantified}{added}
<Spectral_Information_List>{spectral}</Spectral_Information_List>
</Product_Image_Characteristics></n1:General_Info>
</n1:Level-{level[1:]}_User_Product>
"""
