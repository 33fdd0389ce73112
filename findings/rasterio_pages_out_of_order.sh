#!/usr/bin/env bash
# rasterio 1.4.4: the subdatasets of a TIFF of several pages are not in the pages' order.
#
# A file with a page for each band, as ImageJ and tifffile write, opens as its first page,
# and `subdatasets` lists the pages. It lists them by their names as text, so from ten pages
# on page 10 comes before page 2. Who stacks them as listed has 12 or 13 bands of
# Sentinel-2 in another order, with pixels that look right and nothing said. GDAL itself
# numbers them in order (SUBDATASET_1_NAME and so on); sorting by the number after
# GTIFF_DIR: restores it.
#
# Seen: pages of the values 1 to 12 are listed as 1, 10, 11, 12, 2, 3, 4, 5, 6, 7, 8, 9.
# Exits 0 while that holds, 1 once they are in order.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet rasterio==1.4.4 tifffile==2026.3.3 numpy
"$folder/venv/bin/python" - "$folder/bands.tif" <<'PYTHON'
import sys
import warnings

import numpy as np
import rasterio
import tifffile

warnings.simplefilter("ignore")  # the file has no place
with tifffile.TiffWriter(sys.argv[1]) as file:
    for value in range(1, 13):
        file.write(np.full((8, 8), value, np.uint16), contiguous=False)
listed = []
with rasterio.open(sys.argv[1]) as file:
    assert file.count == 1
    for name in file.subdatasets:
        with rasterio.open(name) as page:
            listed.append(int(page.read(1)[0, 0]))
print("pages as listed:", listed)
sys.exit(0 if listed == sorted(range(1, 13), key=str) else 1)
PYTHON
