"""The map that stage map has made."""

from rsclip_jax.report.gallery import data_uri
from rsclip_jax.report.render import Section, render
from rsclip_jax.report.workdir import Workdir


def scene_map(run: Workdir) -> Section | None:
    """The picture of the map beside its scene, and each class's share."""
    meta, path = run.metas.get("map"), run.path / "map" / "quicklook.png"
    if meta is None or not path.exists():
        return None
    shares = meta.more.get("shares", {})
    body = render(
        "map.html",
        picture=data_uri(path.read_bytes()),
        scene=meta.more.get("scene", ""),
        rows=[[name, f"{100 * share:.1f} %"] for name, share in shares.items()],
    )
    return Section(f"Map of {meta.more.get('scene', '')}", body)
