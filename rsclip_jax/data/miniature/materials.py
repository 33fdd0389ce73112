"""The materials of the miniature: their values for each sensor.

Values are typical ones, rounded: reflectances from the ECOSTRESS library (Meerdink et
al. 2019) and the Sentinel-2 User Handbook (ESA 2015); sigma0 from Ulaby & Dobson 1989
(C band, about 38 degrees); emissivities from Snyder et al. 1998.
"""

import numpy as np

# fmt: off
WAVELENGTH = np.array(  # um: B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B10 B11 B12
    [.443, .490, .560, .665, .705, .740, .783, .842, .865, .945, 1.375, 1.610, 2.190])
# One row per material: reflectance at those bands, per cent; sigma0 of VV and VH, dB;
# emissivity, per cent; temperature above the air's in full sun, K; height, m.
MATERIALS = np.array([
    [3.5, 4, 4.2, 2.8, 2.3, 1.7, 1.6, 1.3, 1.2, .9, .8, .6, .4, -18, -28, 99, -6, 0],
    [8, 10, 14, 19, 21, 23, 25, 27, 28, 29, 32, 36, 31,        -12, -20, 96, 9, 0],
    [3, 4, 8, 6, 13, 26, 31, 33, 35, 34, 27, 22, 12,           -12.5, -19, 98, 2, .2],
    [2.5, 3.5, 7.5, 4, 12, 33, 42, 45, 46, 44, 30, 20, 9,      -11.5, -17.5, 98, 1, .6],
    [7, 9, 13, 17, 20, 24, 26, 29, 30, 31, 33, 34, 24,         -12.2, -19.5, 97, 6, .1],
    [2, 2.5, 4.5, 3, 8, 23, 29, 31, 33, 32, 22, 14, 6.5,       -8.5, -14, 98.5, -2, 9],
    [8, 9, 10, 11, 11.5, 12, 12.5, 13, 13, 13.5, 14, 15, 14,   -17, -25, 95, 11, 0],
    [24, 27, 30, 32, 32, 33, 34, 35, 35, 35, 36, 37, 34,       -1, -10, 90, 8, 8],
    [8, 9, 12, 19, 22, 24, 26, 28, 28, 29, 31, 32, 29,         -4, -11, 93, 9, 6],
], np.float32)
# fmt: on
WATER, SOIL, GRASS, CROP, STUBBLE, TREE, ASPHALT, ROOF, TILE = range(9)
REFLECTANCE, SIGMA0 = MATERIALS[:, :13] / 100, MATERIALS[:, 13:15]
EMISSIVITY, WARMTH, HEIGHT = MATERIALS[:, 15] / 100, *MATERIALS[:, 16:].T
