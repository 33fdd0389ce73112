"""Dataset specs: parsing, errors and short names."""

import pytest

from rsclip_jax.data.specs import DatasetSpec, short_specs


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("eurosat_rgb:val", ("eurosat_rgb", "val", 0)),
        ("eurosat_rgb:val:64", ("eurosat_rgb", "val", 64)),
        ("a:train[:90%]", ("a", "train[:90%]", 0)),
        ("a:train[10%:90%]:32", ("a", "train[10%:90%]", 32)),
        ("my_set.toml:train", ("my_set.toml", "train", 0)),
        ("my-set.v2.toml:val[:50%]:64", ("my-set.v2.toml", "val[:50%]", 64)),
        ("/data of mine/s.toml:all", ("/data of mine/s.toml", "all", 0)),
        ("../c:d/s.toml:test:8", ("../c:d/s.toml", "test", 8)),
        ("a:dev", ("a", "dev", 0)),  # for the source to refuse, which knows its splits
    ],
)
def test_a_spec_is_a_name_a_split_and_an_optional_tile(spec, parts):
    found = DatasetSpec.parse(spec)
    assert found == DatasetSpec(*parts)
    assert str(found) == spec


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "a",
        "a:",
        ":val",
        "s.toml",
        "s.toml:",
        "a b:val",
        "a/b:val",
        "a:val:",
        "a: v",
    ],
)
def test_the_error_for_a_malformed_spec_shows_the_form(spec):
    with pytest.raises(ValueError, match=r"is not of the form name:split, .*toml:val"):
        DatasetSpec.parse(spec)


def test_the_short_name_is_the_stem_of_a_toml_file():
    specs = ("x/my.set.toml:val[:50%]:64", "eurosat_rgb:val")
    assert short_specs(specs) == ("my.set:val[:50%]:64", "eurosat_rgb:val")
    assert short_specs("b.toml:test") == ("b:test",)
    assert short_specs("") == short_specs(()) == ()
