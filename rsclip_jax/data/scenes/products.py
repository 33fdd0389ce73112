"""A Copernicus product as downloaded: a .SAFE folder, or the zip file that it is in."""

import os
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar
from xml.etree import ElementTree

T = TypeVar("T")
_MOST = 2**26  # of an XML file; the largest have a few MB


class Product:
    """The files of a product, by their names inside it.

    Attributes:
        path: the folder, or the zip file.
        id: the product's name, without .SAFE.
        names: its files, "GRANULE/.../IMG_DATA/...jp2".

    Raises ValueError for a zip file that is cut, or that holds no product.
    """

    def __init__(self, path: Path):
        self.path, self._prefix = path, ""
        if path.is_dir():
            self.id = path.resolve().name.removesuffix(".SAFE")
            self.names = sorted(_below(path))
            return
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except zipfile.BadZipFile as error:
            raise ValueError(
                f"{path}: unreadable or cut zip file ({error}); fetch it again"
            ) from error
        folders = {name.split("/")[0] for name in names if ".SAFE/" in name}
        if len(folders) != 1:
            raise ValueError(
                f"{path}: holds {len(folders)} .SAFE folders, expected one: give the"
                " path of a product"
            )
        (folder,) = folders
        self.id, self._prefix = folder.removesuffix(".SAFE"), folder + "/"
        inside = [n for n in names if n.startswith(self._prefix) and n[-1] != "/"]
        self.names = sorted(name.removeprefix(self._prefix) for name in inside)

    def gdal_name(self, name: str) -> str:
        """What GDAL opens to read a file of the product."""
        if self._prefix:
            return f"/vsizip/{{{self.path.resolve()}}}/{self._prefix}{name}"
        return str(self.path / name)

    def read_xml(self, name: str) -> ElementTree.Element:
        """Parses an XML file; raises ValueError naming one that is damaged, and
        FileNotFoundError.
        """
        where = f"{self.path}: {name}"
        if name not in self.names:
            raise FileNotFoundError(f"{where} is missing: fetch the whole product")
        data = self._read(name)
        try:
            return ElementTree.fromstring(data)
        except ElementTree.ParseError as error:
            raise ValueError(
                f"{where}: unreadable or cut XML ({error}); fetch the product again"
            ) from error

    def _read(self, name: str) -> bytes:
        """The first bytes of a file, so many as any XML of a product has."""
        if not self._prefix:
            with open(self.path / name, "rb") as file:
                return file.read(_MOST)
        name = self._prefix + name
        with zipfile.ZipFile(self.path) as archive, archive.open(name) as file:
            return file.read(_MOST)


def _below(folder: Path) -> list[str]:
    found = []
    for base, _, names in os.walk(folder):
        found += [Path(base, name).relative_to(folder).as_posix() for name in names]
    return found


def read_text(root: ElementTree.Element, tag: str, where: str) -> str:
    """The text of the first element of a name; raises ValueError if there is none."""
    found = root.findtext(f".//{tag}")
    if found is None or not found.strip():
        raise ValueError(
            f"{where}: has no {tag}, so this is no metadata of the public layout: fetch"
            " the product again, or convert it to GeoTIFF"
        )
    return found.strip()


def read_numbers(text: str | None, where: str) -> list[float]:
    """Numbers between spaces; raises ValueError naming where."""
    try:
        return [float(word) for word in (text or "").split()]
    except ValueError as error:
        raise ValueError(
            f"{where}: {error}, expected numbers; fetch the product again"
        ) from error


def nearest_own(
    found: Iterable[tuple[str, float | None, T]], own: Mapping[str, float]
) -> dict[str, T]:
    """The file of each band that is nearest to the band's own resolution.

    found: (band, metres or None, file). own: band -> metres.
    """
    chosen: dict[str, tuple[float, T]] = {}
    for band, metres, file in found:
        distance = abs(metres - own.get(band, metres)) if metres else 0.0
        if band not in chosen or distance < chosen[band][0]:
            chosen[band] = distance, file
    return {band: file for band, (_, file) in chosen.items()}


def missing_bands(where: str, lacking: Sequence[str], found: Sequence[str]) -> str:
    """What an error says where a scene lacks bands of a sensor."""
    there = ", ".join(found) or "none"
    return (
        f"{where}: has no {', '.join(lacking)}; found {there}: fetch what is missing,"
        " or give a sensor that has these bands only, such as a TOML file of your own"
    )
