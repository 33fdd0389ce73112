"""Map the classes of a satellite image by words.

Purpose   Classify the ground of a whole scene, Sentinel-2, Sentinel-1 or your own
          sensor, by class names, and show where a sentence holds.
Command   python -m rsclip_jax.main --config=configs/map.py --config.init=runs/align_sar
              --config.scene=S1A_IW_GRDH_....SAFE
              --config.classes="('river','forest','harbour')"
          config.init: a workdir with an encoder of the scene's sensor, or weights. A
          plain GeoTIFF needs --config.sensor, such as s2_l2a.
Hardware  CPU or GPU, with memory for the model and 1 GB.
Time      As fast as the encoder: a Sentinel-2 scene has 29,000 tiles of 64 pixels.
Result    runs/map/map: class.tif, probability.tif, confidence.tif, similarity.tif,
          areas.geojson and quicklook.png; report.html shows them.
"""

from rsclip_jax.configs import common


def get_config():
    config = common.base(stages=("map",))
    # Scene to map: GeoTIFF, product's folder or .zip, folder of bands, or STAC item.
    config.scene = ""
    # Sensor of a scene that does not say it, a name or a TOML file; "": it does.
    config.sensor = ""
    # Names of the classes, at least two.
    config.classes = ()
    config.map = common.map()
    return config
