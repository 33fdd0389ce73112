"""Pretrained sensor encoders: which bands, units and scale each was trained on."""

import dataclasses

from rsclip_jax.data.sensors import SENSORS, Sensor
from rsclip_jax.io.lookup import look_up


@dataclasses.dataclass(frozen=True)
class EncoderRow:
    """One published sensor encoder.

    repository and file: its location on the Hugging Face hub. sensor: the bands in
    order, the unit and the scale that it was trained on; None for DOFA, which takes
    any bands, by wavelength.
    """

    name: str
    repository: str
    file: str
    sensor: Sensor | None


# SSL4EO-S12 and its followers: reflectance, DN / 10000, within [0, 1]
_REFLECTANCE = dataclasses.replace(
    SENSORS["s2_l1c"], mean=(0.0,) * 13, std=(10000.0,) * 13, clip_sigma=1.0
)


def _s2(name: str, repository: str, file: str) -> EncoderRow:
    return EncoderRow(name, repository, file, _REFLECTANCE)


# Backscatter in dB, standardised as torchgeo distributes these encoders, and clipped at
# two sigma as SSL4EO-S12 stores it. The authors' 8-bit loader instead maps that range,
# with their mean and std (-12.55, -20.19; 5.26, 5.91), to [0, 1].
def _s1(name: str, repository: str, file: str) -> EncoderRow:
    return EncoderRow(name, repository, file, SENSORS["s1_grd"])


_SSL4EO, _FGMAE = "wangyi111/SSL4EO-S12", "wangyi111/FGMAE"
# SSL4EO-S12 (Wang et al. 2023, arXiv 2211.07044) and FG-MAE (arXiv 2310.18653), from
# their authors and from torchgeo; DOFA (arXiv 2403.15356). All their ViTs have heads of
# 64 channels except ViT-H (80), although the original MoCo v3 ViT-S has 12 heads.
_ROWS = (
    _s2(
        "ssl4eo-moco-vits16-s2",
        "torchgeo/vit_small_patch16_224_sentinel2_all_moco",
        "vit_small_patch16_224_sentinel2_all_moco-67c9032d.pth",
    ),
    _s2(
        "ssl4eo-dino-vits16-s2",
        "torchgeo/vit_small_patch16_224_sentinel2_all_dino",
        "vit_small_patch16_224_sentinel2_all_dino-36bcc127.pth",
    ),
    _s2("ssl4eo-mae-vits16-s2", _SSL4EO, "B13_vits16_mae_ep99_enc.pth"),
    _s2("ssl4eo-mae-vitb16-s2", _SSL4EO, "B13_vitb16_mae_ep99_enc.pth"),
    _s2("ssl4eo-mae-vitl16-s2", _SSL4EO, "B13_vitl16_mae_ep99_enc.pth"),
    _s2("ssl4eo-mae-vith14-s2", _SSL4EO, "B13_vith14_mae_ep199_enc.pth"),
    _s1("ssl4eo-mae-vits16-s1", _SSL4EO, "B2_vits16_mae_ep99_enc.pth"),
    _s1("ssl4eo-mae-vitb16-s1", _SSL4EO, "B2_vitb16_mae_ep99_enc.pth"),
    _s1("ssl4eo-mae-vitl16-s1", _SSL4EO, "B2_vitl16_mae_ep99_enc.pth"),
    _s1("ssl4eo-mae-vith14-s1", _SSL4EO, "B2_vith14_mae_ep199_enc.pth"),
    _s2("fgmae-vits16-s2", _FGMAE, "B13_vits16_fgmae_ep99_enc.pth"),
    _s1("fgmae-vits16-s1", _FGMAE, "B2_vits16_fgmae_ep99_enc.pth"),
    _s2(
        "ssl4eo-moco-rn50-s2",
        "torchgeo/resnet50_sentinel2_all_moco",
        "resnet50_sentinel2_all_moco-df8b932e.pth",
    ),
    _s2(
        "ssl4eo-dino-rn50-s2",
        "torchgeo/resnet50_sentinel2_all_dino",
        "resnet50_sentinel2_all_dino-d6c330e9.pth",
    ),
    _s1(
        "ssl4eo-moco-rn50-s1",
        "torchgeo/resnet50_sentinel1_all_moco",
        "resnet50_sentinel1_all_moco-906e4356.pth",
    ),
    EncoderRow(
        "dofa-vitb16", "torchgeo/dofa", "dofa_base_patch16_224-a0275954.pth", None
    ),
    EncoderRow(
        "dofa-vitl16", "torchgeo/dofa", "dofa_large_patch16_224-0ff904d3.pth", None
    ),
)
ENCODERS: dict[str, EncoderRow] = {row.name: row for row in _ROWS}


def get_encoder(name: str) -> EncoderRow:
    """The encoder of that name; ValueError with the nearest and the list otherwise."""
    return look_up(ENCODERS, name, "sensor encoder")
