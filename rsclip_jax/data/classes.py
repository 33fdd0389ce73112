"""Class folders of the photo sets with their names in prompts, and more templates.

Names stand beside the folder that they belong to: label order is the folders' order.
"""

import importlib.resources

IMAGENET = "imagenet_classes.txt"


def _spaced(folders: str) -> dict[str, str]:
    """Folder names and the same with spaces."""
    return {folder: folder.replace("_", " ") for folder in folders.split()}


# UC Merced Land Use (Yang and Newsam 2010). Folders run words together.
UCMERCED_NAMES = {
    "agricultural": "agricultural land",
    "airplane": "airplane",
    "baseballdiamond": "baseball diamond",
    "beach": "beach",
    "buildings": "buildings",
    "chaparral": "chaparral",
    "denseresidential": "dense residential area",
    "forest": "forest",
    "freeway": "freeway",
    "golfcourse": "golf course",
    "harbor": "harbor",
    "intersection": "intersection",
    "mediumresidential": "medium residential area",
    "mobilehomepark": "mobile home park",
    "overpass": "overpass",
    "parkinglot": "parking lot",
    "river": "river",
    "runway": "runway",
    "sparseresidential": "sparse residential area",
    "storagetanks": "storage tanks",
    "tenniscourt": "tennis court",
}

# AID (Xia et al. 2017, arXiv 1608.05167).
AID_NAMES = {
    "Airport": "airport",
    "BareLand": "bare land",
    "BaseballField": "baseball field",
    "Beach": "beach",
    "Bridge": "bridge",
    "Center": "center",
    "Church": "church",
    "Commercial": "commercial area",
    "DenseResidential": "dense residential area",
    "Desert": "desert",
    "Farmland": "farmland",
    "Forest": "forest",
    "Industrial": "industrial area",
    "Meadow": "meadow",
    "MediumResidential": "medium residential area",
    "Mountain": "mountain",
    "Park": "park",
    "Parking": "parking lot",
    "Playground": "playground",
    "Pond": "pond",
    "Port": "port",
    "RailwayStation": "railway station",
    "Resort": "resort",
    "River": "river",
    "School": "school",
    "SparseResidential": "sparse residential area",
    "Square": "square",
    "Stadium": "stadium",
    "StorageTanks": "storage tanks",
    "Viaduct": "viaduct",
}

# RSSCN7 (Zou et al. 2015): a letter before each name, and in its files' names.
RSSCN7_NAMES = {
    "aGrass": "grassland",
    "bField": "farmland",
    "cIndustry": "industrial area",
    "dRiverLake": "river or lake",
    "eForest": "forest",
    "fResident": "residential area",
    "gParking": "parking lot",
}

# PatternNet (Zhou et al. 2018, arXiv 1706.03424).
PATTERNNET_NAMES = _spaced(
    """airplane baseball_field basketball_court beach bridge cemetery chaparral
    christmas_tree_farm closed_road coastal_mansion crosswalk dense_residential
    ferry_terminal football_field forest freeway golf_course harbor intersection
    mobile_home_park nursing_home oil_gas_field oil_well overpass parking_lot
    parking_space railway river runway runway_marking shipping_yard solar_panel
    sparse_residential storage_tank swimming_pool tennis_court transformer_station
    wastewater_treatment_plant"""
)

# CIFAR-100's fine labels; OpenAI's names are the same with spaces, and its templates
# are CIFAR-10's.
CIFAR100_NAMES = _spaced(
    """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy
    bridge bus butterfly camel can castle caterpillar cattle chair chimpanzee clock
    cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish forest
    fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
    man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter
    palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit
    raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake
    spider squirrel streetcar sunflower sweet_pepper table tank telephone television
    tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm"""
)

# STL-10 (Coates et al. 2011), and OpenAI's two templates.
STL10_NAMES = _spaced("airplane bird car cat deer dog horse monkey ship truck")
STL10_TEMPLATES = ("a photo of a {c}.", "a photo of the {c}.")

# SEN12MS, by the simplified IGBP scheme. No names for prompts are published: these are
# the classes in plain words.
SEN12MS_NAMES = {
    "Forest": "forest",
    "Shrubland": "shrubland",
    "Savanna": "savanna",
    "Grassland": "grassland",
    "Wetlands": "wetlands",
    "Croplands": "croplands",
    "Urban/Built-up": "urban and built-up areas",
    "Snow/Ice": "snow and ice",
    "Barren": "barren land",
    "Water": "water bodies",
}

# So2Sat LCZ42: local climate zones 1 to 10 and A to G (Stewart and Oke 2012), in the
# order of its one-hot labels. No names for prompts are published: these are the zones
# in plain words.
SO2SAT_NAMES = {
    "Compact high-rise": "compact high-rise buildings",
    "Compact mid-rise": "compact mid-rise buildings",
    "Compact low-rise": "compact low-rise buildings",
    "Open high-rise": "open high-rise buildings",
    "Open mid-rise": "open mid-rise buildings",
    "Open low-rise": "open low-rise buildings",
    "Lightweight low-rise": "lightweight low-rise buildings",
    "Large low-rise": "large low-rise buildings",
    "Sparsely built": "sparsely built land",
    "Heavy industry": "heavy industry",
    "Dense trees": "dense trees",
    "Scattered trees": "scattered trees",
    "Bush or scrub": "bush or scrub",
    "Low plants": "low plants",
    "Bare rock or paved": "bare rock or paved ground",
    "Bare soil or sand": "bare soil or sand",
    "Water": "water",
}


def _imagenet_names() -> dict[str, str]:
    """ImageNet's 1,000 synsets with OpenAI's names for them.

    OpenAI calls n03773504 and n04008634 both "missile" and n04355933 and n04356056 both
    "sunglasses"; WordNet's "projectile" and "sunglass" tell them apart here.
    """
    file = importlib.resources.files(__package__) / "assets" / IMAGENET
    lines = file.read_text("utf-8").splitlines()
    return dict(line.split(" ", 1) for line in lines)


IMAGENET_NAMES = _imagenet_names()


def _imagenet_templates() -> tuple[str, ...]:
    """OpenAI's 80, from their parts."""
    views = [f"{kind} photo" for kind in "bad good bright dark blurry".split()]
    views += [f"{kind} photo" for kind in "cropped close-up pixelated".split()]
    views += ["photo", "low resolution photo", "jpeg corrupted photo"]
    views += ["black and white photo", *"rendering rendition painting drawing".split()]
    views += "sketch doodle sculpture tattoo".split()
    looks = [*"clean dirty cool nice weird large small".split(), "hard to see"]
    shown = ("itap", "art", "graffiti")
    made = "plastic plushie toy embroidered origami cartoon".split()
    templates = [f"a photo of {word} {{c}}." for word in ("many", "one", "my")]
    templates.append("itap of my {c}.")
    for article in ("a", "the"):
        templates += [f"a {view} of {article} {{c}}." for view in views]
        templates += [f"{word} of {article} {{c}}." for word in shown]
        templates += [f"a photo of {article} {look} {{c}}." for look in looks]
        templates += [f"{article} {kind} {{c}}." for kind in made]
        templates.append(f"{article} {{c}} in a video game.")
    return tuple(templates)


IMAGENET_TEMPLATES = _imagenet_templates()
