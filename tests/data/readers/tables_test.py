"""Tables of paths and labels: their records and their faults."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from rsclip_jax.data.datasets import open_source

TOP = 'reader = "csv"\ntable = "t.csv"\n'
TABLES = """
[sensors]
rgb = "rgb"
[columns]
rgb = "path"
label = "class"
"""
SPLIT = 'split = "fold"\n'
LINES = "path,class,fold\na.png,sea,train\nb.png,ice,train\nc.png,sea,val\n"


@pytest.fixture
def images(tmp_path):
    """a.png, b.png and c.png, whose pixels are 0, 1 and 2."""
    for i, stem in enumerate("abc"):
        Image.fromarray(np.full((4, 4, 3), i, np.uint8)).save(tmp_path / f"{stem}.png")
    return tmp_path


def write(folder, table, columns="", top=""):
    """The path of a TOML file over a csv of this text, or bytes."""
    data = table if isinstance(table, bytes) else table.encode()
    (folder / "t.csv").write_bytes(data)
    path = folder / "mine.toml"
    path.write_text(TOP + top + TABLES + columns)
    return str(path)


def write_parquet(folder, table, columns="", top=""):
    pq.write_table(pa.table(table), folder / "t.parquet")
    path = folder / "mine.toml"
    text = TOP.replace("csv", "parquet") + top + TABLES + columns
    path.write_text(text)
    return str(path)


def held(source):
    """[(id, value of the image, label)]"""
    records = [source[i] for i in range(len(source))]
    return [(r["id"], r["rgb"].max(), np.array(r["label"]).tolist()) for r in records]


def test_a_row_is_a_record_whose_id_is_the_path(images):
    source = open_source(write(images, LINES))
    assert source.dataset.classes == ("ice", "sea")
    assert held(source) == [("a.png", 0, 1), ("b.png", 1, 0), ("c.png", 2, 1)]
    assert source.ids == ["a.png", "b.png", "c.png"]


def test_a_column_makes_the_splits_and_a_hash_their_parts(images):
    path = write(images, LINES, SPLIT)
    assert open_source(path, "", "train").ids == ["a.png", "b.png"]
    assert open_source(path, "", "val").ids == ["c.png"]
    assert open_source(path, "", "val").dataset.classes == ("ice", "sea")
    parts = [ids(path, f"train[{part}]") for part in (":50%", "50%:")]
    assert sorted(parts[0] + parts[1]) == ["a.png", "b.png"]
    with pytest.raises(
        FileNotFoundError,
        match=r"t\.csv: no row of split 'test'; it has train \(2 rows\), val \(1 rows",
    ):
        open_source(path, "", "test")


def ids(path, split):
    try:
        return open_source(path, "", split).ids
    except FileNotFoundError:
        return []


def test_without_a_column_a_hash_of_the_id_makes_the_splits(tmp_path):
    lines = ["path,class"]
    for i in range(40):
        Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,sea")
    path = write(tmp_path, "\n".join(lines))
    found = [ids(path, split) for split in ("train", "val", "test")]
    assert sorted(sum(found, [])) == sorted(open_source(path).ids)  # noqa: RUF017
    assert all(found)


def test_one_cell_holds_several_labels(images):
    table = "path,class\na.png,sea; ice\nb.png,\nc.png,sea\n"
    path = write(images, table, top='task = "multi"\nseparator = ";"\n')
    assert [x for _, _, x in held(open_source(path))] == [[1, 1], [0, 0], [0, 1]]
    path = write(images, table.replace(";", "|"), top='task = "multi"\n')
    source = open_source(path)
    assert [x for _, _, x in held(source)] == [[1, 1], [0, 0], [0, 1]]
    assert source[0]["label"].dtype == np.uint8


def test_without_a_label_column_the_dataset_is_unlabelled(images):
    path = write(images, LINES)
    text = (images / "mine.toml").read_text().replace('label = "class"\n', "")
    (images / "mine.toml").write_text(text)
    source = open_source(path)
    assert source.dataset.task == "none"
    assert [x for _, _, x in held(source)] == [-1, -1, -1]


def test_a_column_of_ids_and_a_folder_for_the_paths(images):
    table = "\ufeffid, path ,class\n1,a.png,ice\n\n2,b.png,ice\n"  # Excel's mark
    (images / "x").mkdir()
    for name in "ab":
        (images / f"{name}.png").rename(images / "x" / f"{name}.png")
    source = open_source(write(images, table, 'id = "id"\n', 'folder = "x"\n'))
    assert held(source) == [("1", 0, 0), ("2", 1, 0)]


def test_quoted_cells_hold_commas_and_line_breaks(images):
    table = 'note,path,class\r\n"a,\r\nb",a.png,"sea,\nice"\r\nx,b.png,a\u2028b\r\n'
    source = open_source(write(images, table))
    assert source.dataset.classes == ("a\u2028b", "sea,\nice")
    assert source.ids == ["a.png", "b.png"]


# Parquet.


def test_parquet_holds_the_same_columns(images):
    table = {
        "path": ["a.png", "b.png"],
        "class": [3, 11],  # numbers, as text
        "fold": ["train", "validation"],
        "geometry": [b"\x01\x02", None],  # GeoParquet's, which is not read
    }
    path = write_parquet(images, table, SPLIT + '[splits]\nval = "validation"\n')
    source = open_source(path)
    assert source.dataset.classes == ("11", "3")
    assert held(source) == [("a.png", 0, 1), ("b.png", 1, 0)]
    assert open_source(path, "", "val").ids == ["b.png"]


def test_parquet_holds_lists_of_labels(images):
    table = {"path": ["a.png", "b.png"], "class": [["sea", "ice"], []]}
    path = write_parquet(images, table, top='task = "multi"\n')
    assert [x for _, _, x in held(open_source(path))] == [[1, 1], [0, 0]]
    with pytest.raises(
        ValueError, match=r"line 1: a list of labels .* task = \"multi\""
    ):
        open_source(write_parquet(images, table))


def test_a_cut_parquet_file_and_a_missing_column_are_named(images):
    path = write_parquet(images, {"path": ["a.png"], "klass": ["a"]})
    with pytest.raises(
        ValueError, match=r"t\.parquet: no column 'class'; it has 'path"
    ):
        open_source(path)
    path = write_parquet(images, {"path": ["a.png", None], "class": ["a", "b"]})
    with pytest.raises(
        ValueError, match=r"t\.parquet, line 2: nothing in column 'path"
    ):
        open_source(path)
    file = images / "t.parquet"
    for keep in (0, 50, -1):
        whole = file.read_bytes()
        file.write_bytes(whole[:keep])
        with pytest.raises(ValueError, match=r"t\.parquet: unreadable or cut parquet"):
            open_source(path)
        file.write_bytes(whole)


# What is wrong with a csv.


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (
            "path;class\na.png;sea\n",
            r"no column 'path', 'class'; it has 'path;class' \(a c",
        ),
        (
            "path,fold\na.png,train\n",
            r"t\.csv: no column 'class'; it has 'path', 'fold'",
        ),
        ("path,class,class\na.png,a,b\n", "column 'class' occurs twice"),
        ("", r"t\.csv: no column 'path', 'class'; it has none"),
        ("path,class\n\n", r"t\.csv: the table has no rows"),
        (
            "path,class\na.png,sea\nb.p",
            r"line 3: 1 cells, but the header has 2; is the",
        ),
        ("path,class\na.png,sea,x\n", r"line 2: 3 cells, but the header has 2"),
        ('path,class\na.png,"sea\n', r"t\.csv, line 2: unexpected end of data"),
        ("path,class\na.png,\n", r"t\.csv, line 2: no label in column 'class'"),
        ("path,class\n ,sea\n", r"t\.csv, line 2: nothing in column 'path'"),
        (
            b"path,class\na.png,\xe9t\xe9\n",
            r"not UTF-8 \(byte 17 is 0xe9\); save the ta",
        ),
        (
            "path,class\na.png,sea\nb.png,a\na.png,ice\n",
            r"t\.csv: 1 id\(s\) occur twice: 'a\.png' in lines 2, 4; name a colu",
        ),
    ],
)
def test_each_fault_of_a_table_is_named(images, table, words):
    with pytest.raises(ValueError, match=words) as error:
        open_source(write(images, table))
    assert str(images / "t.csv") in str(error.value)


def test_a_missing_table_is_named(images):
    path = write(images, LINES)
    (images / "t.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"t\.csv: this table does not exist"):
        open_source(path)


def test_the_error_for_an_unknown_label_suggests_the_nearest(images):
    path = write(images, LINES, top='classes = ["ices", "sea"]\n')
    words = r"line 3: unknown label 'ice': did you mean 'ices'\? Known: ices, sea"
    with pytest.raises(ValueError, match=words):
        open_source(path)


def test_the_error_for_an_unknown_split_shows_how_to_name_it(images):
    path = write(images, LINES.replace("val", "dev"), SPLIT)
    words = r"line 4: split 'dev' is not one of train, val, test; .* as val = 'dev'"
    with pytest.raises(ValueError, match=words):
        open_source(path)
    path = write(images, LINES.replace("val", ""), SPLIT)
    with pytest.raises(ValueError, match=r"line 4: nothing in column 'fold'"):
        open_source(path)


def test_repeated_ids_are_counted_and_the_first_named(images):
    rows = [f"{i % 20},a.png,sea" for i in range(40)]
    path = write(images, "\n".join(["id,path,class", *rows]), 'id = "id"\n')
    words = (
        r"20 id\(s\) occur twice: '0' in lines 2, 22; .*'4' in lines 6, 26; \.\.\.; g"
    )
    with pytest.raises(ValueError, match=words):
        open_source(path)


def test_absent_files_are_counted_and_the_first_named(images, capsys):
    rows = [f"gone/{i:02}.png,sea" for i in range(30)]
    path = write(images, "\n".join(["path,class", "a.png,ice", *rows]))
    words = r"t\.csv: 30 of its images are absent: .*/00\.png, .*04\.png, \.\.\.;"
    with pytest.raises(ValueError, match=words) as error:
        open_source(path)
    assert "05.png" not in str(error.value)
    assert "on_error='skip' leaves" in str(error.value)
    source = open_source(path, on_error="skip")
    assert held(source) == [("a.png", 0, 0)]
    assert "30 of its images are absent" in capsys.readouterr().out


def test_the_files_of_every_sensor_must_exist(images):
    path = images / "mine.toml"
    Image.fromarray(np.full((4, 4), 9, np.uint8)).save(images / "r.png")
    path.write_text(
        TOP + '[sensors]\ns1 = "s1_vv_8bit"\nrgb = "rgb"\n'
        '[columns]\nrgb = "optical"\ns1 = "radar"\n'
    )
    (images / "t.csv").write_text("optical,radar\na.png,r.png\nb.png,no.png\n")
    with pytest.raises(ValueError, match=r"1 of its images are absent: .*no\.png;"):
        open_source(str(path))
    source = open_source(str(path), on_error="skip")
    assert source.ids == ["a.png"]  # the column that is named first
    assert source[0]["s1"].shape == (4, 4, 1)
    assert source[0]["rgb"].max() == 0
