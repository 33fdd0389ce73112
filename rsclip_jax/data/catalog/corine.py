"""CORINE land cover: BigEarthNet's 43 classes, and the 19 and 5 made of them.

The 43 classes are CORINE's third level. Sumbul et al. 2021 (arXiv 2105.07921) merged 32
of them into 19 and dropped 11. The 5 classes are CORINE's first level, the first digit
of the code.
"""

CODES: dict[str, int] = {
    "Continuous urban fabric": 111,
    "Discontinuous urban fabric": 112,
    "Industrial or commercial units": 121,
    "Road and rail networks and associated land": 122,
    "Port areas": 123,
    "Airports": 124,
    "Mineral extraction sites": 131,
    "Dump sites": 132,
    "Construction sites": 133,
    "Green urban areas": 141,
    "Sport and leisure facilities": 142,
    "Non-irrigated arable land": 211,
    "Permanently irrigated land": 212,
    "Rice fields": 213,
    "Vineyards": 221,
    "Fruit trees and berry plantations": 222,
    "Olive groves": 223,
    "Pastures": 231,
    "Annual crops associated with permanent crops": 241,
    "Complex cultivation patterns": 242,
    "Land principally occupied by agriculture, with significant areas of natural"
    " vegetation": 243,
    "Agro-forestry areas": 244,
    "Broad-leaved forest": 311,
    "Coniferous forest": 312,
    "Mixed forest": 313,
    "Natural grassland": 321,
    "Moors and heathland": 322,
    "Sclerophyllous vegetation": 323,
    "Transitional woodland/shrub": 324,
    "Beaches, dunes, sands": 331,
    "Bare rock": 332,
    "Sparsely vegetated areas": 333,
    "Burnt areas": 334,
    "Inland marshes": 411,
    "Peatbogs": 412,
    "Salt marshes": 421,
    "Salines": 422,
    "Intertidal flats": 423,
    "Water courses": 511,
    "Water bodies": 512,
    "Coastal lagoons": 521,
    "Estuaries": 522,
    "Sea and ocean": 523,
}
# The 19 classes in label order, with the codes that each merges.
NINETEEN: dict[str, tuple[int, ...]] = {
    "Urban fabric": (111, 112),
    "Industrial or commercial units": (121,),
    "Arable land": (211, 212, 213),
    "Permanent crops": (221, 222, 223, 241),
    "Pastures": (231,),
    "Complex cultivation patterns": (242,),
    "Land principally occupied by agriculture, with significant areas of natural"
    " vegetation": (243,),
    "Agro-forestry areas": (244,),
    "Broad-leaved forest": (311,),
    "Coniferous forest": (312,),
    "Mixed forest": (313,),
    "Natural grassland and sparsely vegetated areas": (321, 333),
    "Moors, heathland and sclerophyllous vegetation": (322, 323),
    "Transitional woodland, shrub": (324,),
    "Beaches, dunes, sands": (331,),
    "Inland wetlands": (411, 412),
    "Coastal wetlands": (421, 422),
    "Inland waters": (511, 512),
    "Marine waters": (521, 522, 523),
}
FIVE: dict[str, int] = {
    "Artificial surfaces": 1,
    "Agricultural areas": 2,
    "Forest and seminatural areas": 3,
    "Wetlands": 4,
    "Water bodies": 5,
}


def class_map(count: int) -> dict[str, str]:
    """{label in an archive: its class among `count` classes: 5, 19 or 43}.

    Labels are the 43 names of version 1 and the 19 names of version 2. A label that
    belongs to none of the classes is mapped to "".
    """
    by_code = {code: name for name, codes in NINETEEN.items() for code in codes}
    first = {digit: name for name, digit in FIVE.items()}
    if count == 43:
        return {name: name for name in CODES}
    if count == 19:
        return {n: n for n in NINETEEN} | {
            name: by_code.get(code, "") for name, code in CODES.items()
        }
    merged = {name: first[codes[0] // 100] for name, codes in NINETEEN.items()}
    return merged | {name: first[code // 100] for name, code in CODES.items()}


def class_names(count: int) -> tuple[str, ...]:
    """The 5, 19 or 43 classes in label order."""
    return {5: tuple(FIVE), 19: tuple(NINETEEN), 43: tuple(CODES)}[count]
