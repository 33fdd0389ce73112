"""Class folders of the photo datasets, their names in prompts, and more templates.

Each folder is followed by its name in prompts; the folders are in label order.
"""

import importlib.resources

IMAGENET = "imagenet_classes.txt"


def _spaced(folders: str) -> dict[str, str]:
    """{folder: its name with spaces for underscores}."""
    return {folder: folder.replace("_", " ") for folder in folders.split()}


def _listed(names: str) -> tuple[str, ...]:
    """Names with commas between them."""
    return tuple(" ".join(names.split()).split(", "))


# UC Merced Land Use (Yang and Newsam 2010), whose folder names run words together.
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

# RSSCN7 (Zou et al. 2015): folder and file names begin with a letter for the class.
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

# CIFAR-100's fine labels. OpenAI's class names are the labels with spaces, and its
# templates are those of CIFAR-10.
# OPTIMAL-31 (Wang et al. 2018), a part of RESISC45's classes.
OPTIMAL31_NAMES = _spaced(
    """airplane airport baseball_diamond basketball_court beach bridge chaparral church
    circular_farmland commercial_area dense_residential desert forest freeway
    golf_course ground_track_field harbor industrial_area intersection island lake
    meadow medium_residential mobile_home_park mountain overpass parking_lot railway
    rectangular_farmland roundabout runway"""
)

# RSI-CB256 (Li et al. 2020).
RSI_CB256_NAMES = {
    **_spaced(
        """airplane airport_runway artificial_grassland avenue bare_land bridge
        city_building coastline container crossroads dam desert dry_farm forest
        green_farmland highway hirst lakeshore mangrove marina mountain parkinglot
        pipeline residents river river_protection_forest sandbeach sapling sea shrubwood
        snow_mountain sparse_forest storage_room stream town"""
    ),
    "parkinglot": "parking lot",
    "sandbeach": "sand beach",
}

# WHU-RS19 (Xia et al. 2010; Dai and Yang 2011).
WHU_RS19_NAMES = {
    "Airport": "airport",
    "Beach": "beach",
    "Bridge": "bridge",
    "Commercial": "commercial area",
    "Desert": "desert",
    "Farmland": "farmland",
    "Forest": "forest",
    "Industrial": "industrial area",
    "Meadow": "meadow",
    "Mountain": "mountain",
    "Park": "park",
    "Parking": "parking lot",
    "Pond": "pond",
    "Port": "port",
    "Residential": "residential area",
    "River": "river",
    "Viaduct": "viaduct",
    "footballField": "football field",
    "railwayStation": "railway station",
}

# MLRSNet (Qi et al. 2020): its categories, and the labels that an image has several of.
MLRSNET_NAMES = {
    **_spaced(
        """airplane airport bareland baseball_diamond basketball_court beach bridge
        chaparral cloud commercial_area dense_residential_area desert eroded_farmland
        farmland forest freeway golf_course ground_track_field harbor&port
        industrial_area intersection island lake meadow mobile_home_park mountain
        overpass park parking_lot parkway railway railway_station river roundabout
        shipping_yard snowberg sparse_residential_area stadium storage_tank
        swimming_pool tennis_court terrace transmission_tower vegetable_greenhouse
        wetland wind_turbine"""
    ),
    "bareland": "bare land",
    "harbor&port": "harbor and port",
}
MLRSNET_LABELS = _listed(
    """airplane, airport, bare soil, baseball diamond, basketball court, beach, bridge,
    buildings, cars, chaparral, cloud, containers, crosswalk, dense residential area,
    desert, dock, factory, field, football field, forest, freeway, golf course, grass,
    greenhouse, gully, harbor, intersection, island, lake, mobile home, mountain,
    overpass, park, parking lot, parkway, pavement, railway, railway station, river,
    road, roundabout, runway, sand, sea, ships, snow, snowberg, sparse residential area,
    stadium, swimming pool, tanks, tennis court, terrace, track, trail,
    transmission tower, trees, water, wetland, wind turbine"""
)

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

# SEN12MS's classes of the simplified IGBP scheme. No prompt names are published; these
# put the classes in plain words.
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
# order of its one-hot labels. No prompt names are published; these put the zones in
# plain words.
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


# Food-101 (Bossard et al. 2014). OpenAI's class names are the folders with spaces.
FOOD101_NAMES = _spaced(
    """apple_pie baby_back_ribs baklava beef_carpaccio beef_tartare beet_salad beignets
    bibimbap bread_pudding breakfast_burrito bruschetta caesar_salad cannoli
    caprese_salad carrot_cake ceviche cheese_plate cheesecake chicken_curry
    chicken_quesadilla chicken_wings chocolate_cake chocolate_mousse churros
    clam_chowder club_sandwich crab_cakes creme_brulee croque_madame cup_cakes
    deviled_eggs donuts dumplings edamame eggs_benedict escargots falafel filet_mignon
    fish_and_chips foie_gras french_fries french_onion_soup french_toast fried_calamari
    fried_rice frozen_yogurt garlic_bread gnocchi greek_salad grilled_cheese_sandwich
    grilled_salmon guacamole gyoza hamburger hot_and_sour_soup hot_dog huevos_rancheros
    hummus ice_cream lasagna lobster_bisque lobster_roll_sandwich macaroni_and_cheese
    macarons miso_soup mussels nachos omelette onion_rings oysters pad_thai paella
    pancakes panna_cotta peking_duck pho pizza pork_chop poutine prime_rib
    pulled_pork_sandwich ramen ravioli red_velvet_cake risotto samosa sashimi scallops
    seaweed_salad shrimp_and_grits spaghetti_bolognese spaghetti_carbonara spring_rolls
    steak strawberry_shortcake sushi tacos takoyaki tiramisu tuna_tartare waffles"""
)
FOOD101_TEMPLATES = ("a photo of {c}, a type of food.",)

# fMoW (Christie et al. 2018), and its templates in WiSE-FT (Wortsman et al. 2022)
# except the two that choose between "a" and "an" by the class name.
FMOW_NAMES = _spaced(
    """airport airport_hangar airport_terminal amusement_park aquaculture
    archaeological_site barn border_checkpoint burial_site car_dealership
    construction_site crop_field dam debris_or_rubble educational_institution
    electric_substation factory_or_powerplant fire_station flooded_road fountain
    gas_station golf_course ground_transportation_station helipad hospital
    impoverished_settlement interchange lake_or_pond lighthouse military_facility
    multi-unit_residential nuclear_powerplant office_building oil_or_gas_facility park
    parking_lot_or_garage place_of_worship police_station port prison race_track
    railway_bridge recreational_facility road_bridge runway shipyard shopping_mall
    single-unit_residential smokestack solar_farm space_facility stadium storage_tank
    surface_mine swimming_pool toll_booth tower tunnel_opening waste_disposal
    water_treatment_facility wind_farm zoo"""
)
FMOW_TEMPLATES = (
    *(
        f"{view} photo of a {{c}}{where}."
        for where in (
            "",
            *(f" in {part}" for part in "asia africa europe oceania".split()),
            " in the americas",
        )
        for view in ("satellite", "aerial")
    ),
    "a photo of a {c}.",
    "{c}.",
)


def _imagenet_names() -> dict[str, str]:
    """{synset: OpenAI's name} of ImageNet's 1,000 classes.

    OpenAI calls both n03773504 and n04008634 "missile", and both n04355933 and
    n04356056 "sunglasses"; here WordNet's "projectile" and "sunglass" distinguish them.
    """
    file = importlib.resources.files("rsclip_jax") / "data" / "assets" / IMAGENET
    lines = file.read_text("utf-8").splitlines()
    return dict(line.split(" ", 1) for line in lines)


IMAGENET_NAMES = _imagenet_names()


def _imagenet_templates() -> tuple[str, ...]:
    """OpenAI's 80 templates, built from their parts."""
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
