"""The maps from CORINE's third level to BigEarthNet's 19 and 5 classes, by code."""

from rsclip_jax.data.catalog.corine import CODES, FIVE, NINETEEN, class_map, class_names


def test_the_class_counts_are_those_of_the_papers():
    assert [len(class_names(n)) for n in (5, 19, 43)] == [5, 19, 43]
    assert len(set(CODES.values())) == 43
    assert sorted(CODES.values()) == list(CODES.values())


def test_each_code_is_in_at_most_one_of_19_classes_and_11_are_in_none():
    held = [code for codes in NINETEEN.values() for code in codes]
    assert len(held) == len(set(held)) == 32
    assert set(held) <= set(CODES.values())
    left_out = {name for name, code in CODES.items() if code not in held}
    assert left_out == {
        "Road and rail networks and associated land",
        "Port areas",
        "Airports",
        "Mineral extraction sites",
        "Dump sites",
        "Construction sites",
        "Green urban areas",
        "Sport and leisure facilities",
        "Bare rock",
        "Burnt areas",
        "Intertidal flats",
    }
    assert {name for name, to in class_map(19).items() if not to} == left_out


def test_the_5_classes_are_the_first_digit_of_the_code():
    mapped = class_map(5)
    for name, code in CODES.items():
        assert FIVE[mapped[name]] == code // 100
    for name, codes in NINETEEN.items():
        assert {FIVE[mapped[name]]} == {code // 100 for code in codes}


def test_every_class_has_a_label():
    for count in (5, 19, 43):
        assert set(class_map(count).values()) - {""} == set(class_names(count))


def test_names_in_both_versions_map_to_themselves():
    for name in set(CODES) & set(NINETEEN):
        assert CODES[name] in NINETEEN[name]
