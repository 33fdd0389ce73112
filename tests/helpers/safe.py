"""Copernicus products in their public layout, at toy size."""

import numpy as np
from rasterio.control import GroundControlPoint
from rasterio.warp import transform

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


def write_jp2(path, array, metres, block=1024):
    """Writes [h, w] as ESA's JPEG 2000 files are: lossless, without nodata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    place = {"crs": f"EPSG:{EPSG}", "transform": north_up(LEFT, TOP, float(metres))}
    blocks = {"blockxsize": block, "blockysize": block}
    return write_by_gdal(path, array, **_LOSSLESS, **place, **blocks)


def draw_bands(side=120, low=1, high=9000, seed=0):
    """{band: [h, w]} in the sizes of their resolutions; side: at 10 m."""
    rng = np.random.default_rng(seed)
    sizes = {band: side * 10 // metres for band, metres in METRES.items()}
    return {
        band: rng.integers(low, high, (size, size)).astype(np.uint16)
        for band, size in sizes.items()
    }


def write_s2(
    root,
    level,
    bands,
    *,
    offsets=-1000,
    step=10000,
    baseline="0510",
    scl=None,
    blocks=None,
):
    """Writes a Sentinel-2 product; returns its folder.

    bands: {band: [h, w]}. offsets: one for all bands, {band: offset}, or None for a
    product of before 2022. scl: [h, w] at 20 m. blocks: {metres: side of a block}.
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
        block = (blocks or {}).get(metres, 1024)
        write_jp2(folder / f"{name}.jp2", array, metres, block)
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


# Sentinel-1: a frame that is turned by 12 degrees, as ascending orbits are.
S1_SHAPE, S1_STEP = (300, 360), 10.0
S1_NAME = "S1A_IW_GRDH_1SDV_20240607T053500_20240607T053525_054213_069785_1A2B"
_TURN = np.radians(12.0)


def s1_ground(rows, columns, left=600000.0, top=5000000.0):
    """(x, y) in UTM of places in the toy frame, in pixels."""
    x = S1_STEP * (np.cos(_TURN) * columns + np.sin(_TURN) * rows)
    y = S1_STEP * (np.sin(_TURN) * columns - np.cos(_TURN) * rows)
    return left + x, top + y


def s1_table(rows, columns):
    """A of the toy frame's calibration, which is bilinear between its vectors."""
    return 300 + 0.2 * rows + 0.1 * columns + 0.0005 * rows * columns


def write_s1(root, sigmas, *, left=600000.0, top=5000000.0, zone=32):
    """Writes a Sentinel-1 GRD product; returns its folder.

    sigmas: {"vv": sigma0 [lines, samples]}, of which DN are made; NaN: none.
    """
    folder = root / f"{S1_NAME}.SAFE"
    for part in ("measurement", "annotation/calibration"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "manifest.safe").write_text("<xfdu/>")
    rows, columns = np.mgrid[: S1_SHAPE[0], : S1_SHAPE[1]]
    for number, (band, sigma) in enumerate(sigmas.items(), 1):
        stem = f"s1a-iw-grd-{band}-20240607t053500-20240607t053525-054213-069785-"
        stem += f"{number:03}"
        dn = np.nan_to_num(np.rint(s1_table(rows, columns) * np.sqrt(sigma)))
        write_by_gdal(
            folder / f"measurement/{stem}.tiff",
            dn.astype(np.uint16),
            gcps=_control_points(left, top, zone),
            crs="EPSG:4326",
        )
        (folder / f"annotation/{stem}.xml").write_text(_S1_ANNOTATION)
        calibration = folder / f"annotation/calibration/calibration-{stem}.xml"
        calibration.write_text(_calibration())
    return folder


def _control_points(left, top, zone):
    at = [(r, c) for r in range(0, 301, 60) for c in range(0, 361, 60)]
    rows, columns = np.array(at, float).T
    x, y = s1_ground(rows, columns, left, top)
    lon, lat = transform(f"EPSG:{32600 + zone}", "EPSG:4326", x, y)
    return [GroundControlPoint(*p) for p in zip(rows, columns, lon, lat, strict=True)]


_S1_ANNOTATION = """<?xml version="1.0" encoding="UTF-8"?>
<product><adsHeader><missionId>S1A</missionId><productType>GRD</productType>
<polarisation>VV</polarisation><mode>IW</mode></adsHeader>
<imageAnnotation><imageInformation>
<rangePixelSpacing>1.000000e+01</rangePixelSpacing>
<azimuthPixelSpacing>1.000000e+01</azimuthPixelSpacing>
</imageInformation></imageAnnotation></product>
"""


def _calibration():
    vectors = ""
    pixels = [*range(0, S1_SHAPE[1], 40), S1_SHAPE[1] - 1]
    for line in (-50, 40, 130, 310):
        values = " ".join(f"{s1_table(line, p):.9e}" for p in pixels)
        vectors += (
            "<calibrationVector><azimuthTime>2024-06-07T05:35:00</azimuthTime>"
            f"<line>{line}</line><pixel count='{len(pixels)}'>"
            f"{' '.join(map(str, pixels))}</pixel><sigmaNought count='{len(pixels)}'>"
            f"{values}</sigmaNought><betaNought count='1'>2.37e+02</betaNought>"
            "</calibrationVector>"
        )
    return (
        '<?xml version="1.0" encoding="UTF-8"?><calibration><adsHeader/>'
        f"<calibrationVectorList count='4'>{vectors}</calibrationVectorList>"
        "</calibration>"
    )
