"""Tables of paths and labels: their records and their faults."""

import io
import json
import pickle
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from rsclip_jax.data.datasets import open_source
from rsclip_jax.data.inspect.scan import scan
from rsclip_jax.data.pipeline.augment import Augment
from rsclip_jax.data.pipeline.batches import train_batches
from rsclip_jax.data.pipeline.tolerant import Tolerant
from rsclip_jax.data.types import ReadOptions

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


def test_paths_of_windows_are_those_of_other_systems(images):
    (images / "sea").mkdir()
    (images / "a.png").rename(images / "sea" / "a.png")
    table = LINES.replace("a.png", "sea/a.png")
    want = held(open_source(write(images, table)))
    assert want[0][0] == "sea/a.png"
    assert held(open_source(write(images, table.replace("/", "\\")))) == want


def test_a_long_cell_of_a_geometry_is_read_over(images):
    header, *rows = LINES.splitlines()
    shape = '"POLYGON ((' + "30.25 10.5, " * 20_000 + '30.25 10.5))"'
    lines = [f"{header},geometry", *(f"{row},{shape}" for row in rows)]
    assert len(open_source(write(images, "\n".join(lines)))) == 3


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


@pytest.mark.parametrize("reader", ["csv", "parquet"])
def test_several_labels_may_be_none_but_not_missing(images, reader):
    top = 'task = "multi"\n'
    paths = [f"{stem}.png" for stem in "abc"]
    if reader == "csv":
        path = write(images, "path,class\na.png,sea|ice\nb.png,\nc.png,nan\n", top=top)
    else:
        labels = [["sea", "ice"], [], None]
        path = write_parquet(images, {"path": paths, "class": labels}, top=top)
    with pytest.raises(ValueError, match=r"line [34]: no label in column 'class'"):
        open_source(path)
    source = open_source(path, on_error="skip")
    assert held(source) == [("a.png", 0, [1, 1]), ("b.png", 1, [0, 0])]


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
        (
            "path,class\na.png,\n",
            r"t\.csv: 1 fault.* line 2: no label in column 'class'",
        ),
        ("path,class\n ,sea\n", r"t\.csv, line 2: nothing in column 'path'"),
        (
            b"path,class\na.png,\xe9t\xe9\n",
            r"not UTF-8 \(byte 17 is 0xe9\); save the fi",
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


def describe_two_sensors(images):
    """Writes r.png and a dataset file of RGB and radar in columns; returns its path."""
    path = images / "mine.toml"
    Image.fromarray(np.full((4, 4), 9, np.uint8)).save(images / "r.png")
    path.write_text(
        TOP + '[sensors]\ns1 = "s1_vv_8bit"\nrgb = "rgb"\n'
        '[columns]\nrgb = "optical"\ns1 = "radar"\n'
    )
    return path


def test_the_files_of_every_sensor_must_exist(images):
    path = describe_two_sensors(images)
    (images / "t.csv").write_text("optical,radar\na.png,r.png\nb.png,no.png\n")
    with pytest.raises(ValueError, match=r"1 of its images are absent: .*no\.png;"):
        open_source(str(path))
    source = open_source(str(path), on_error="skip")
    assert source.ids == ["a.png"]  # the column that is named first
    assert source[0]["s1"].shape == (4, 4, 1)
    assert source[0]["rgb"].max() == 0


def test_a_record_lacks_the_sensor_whose_cell_is_blank(images):
    path = describe_two_sensors(images)
    (images / "t.csv").write_text("optical,radar\na.png,r.png\nb.png,\n")
    source = open_source(str(path))
    assert set(source[0]) == {"id", "label", "rgb", "s1"}
    assert set(source[1]) == {"id", "label", "rgb"}
    assert source.read(1, ("rgb",))["rgb"].max() == 1
    needed = Tolerant(source, keys=("rgb", "s1"))
    with pytest.raises(ValueError, match=r"b\.png: this record has no s1"):
        needed[1]
    both = {"sizes": {"rgb": 4, "s1": 4}, "options": ReadOptions(2)}
    drawn = train_batches([source], **both, optional=("s1",), augment=Augment(), seed=0)
    batch = next(drawn)
    assert sorted(batch["has_s1"]) == [False, True]
    assert scan(source, range(2)).unreadable == {1: "b.png: this record has no s1"}
    (images / "t.csv").write_text("optical,radar\na.png,r.png\n ,\n")
    assert open_source(str(path)).ids == ["a.png"]  # a blank row
    (images / "t.csv").write_text("optical,radar\n,r.png\n")
    with pytest.raises(ValueError, match="line 2: nothing in column 'optical'"):
        open_source(str(path))  # it is the id


def test_rows_without_a_label_are_left_out_or_named(images):
    path = write(images, LINES.replace("ice", ""))
    with pytest.raises(ValueError, match=r"t\.csv: 1 fault.* line 3: no label in col"):
        open_source(path)
    source = open_source(path, on_error="skip")
    assert source.ids == ["a.png", "c.png"]
    assert source.dataset.classes == ("sea",)
    assert source.left_out == [
        (str(images / "t.csv"), "line 3: no label in column 'class'")
    ]


# Images in the table, as Hugging Face's datasets write them.


def png(value):
    data = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), value, np.uint8)).save(data, "PNG")
    return data.getvalue()


def write_images(folder, paths, labels, feature=None, groups=2):
    cells = [{"bytes": png(i), "path": path} for i, path in enumerate(paths)]
    table = pa.table({"path": cells, "class": labels})
    if feature:
        features = {"path": {"_type": "Image"}, "class": feature}
        told = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": told})
    path = write_parquet(folder, {"path": ["a"], "class": ["b"]})
    pq.write_table(table, folder / "t.parquet", row_group_size=groups)
    return path


NAMES = {"names": ["sea", "ice", "rock"], "_type": "ClassLabel"}


def test_images_are_read_from_the_table_in_any_order(tmp_path):
    stems = ["x.png", "y.png", "z.png", "w.png", "v.png"]
    path = write_images(tmp_path, stems, [2, 0, 1, -1, 2], NAMES)
    with pytest.raises(ValueError, match="line 4: no label in column 'class'"):
        open_source(path)
    source = open_source(path, on_error="skip")
    assert source.dataset.classes == ("sea", "ice", "rock")  # the file's order
    kept = [("x.png", 0, 2), ("y.png", 1, 0), ("z.png", 2, 1), ("v.png", 4, 2)]
    assert held(source) == kept
    assert [source[i]["rgb"].max() for i in (3, 0, 2)] == [4, 0, 2]
    assert held(pickle.loads(pickle.dumps(source))) == kept  # for another process


@pytest.mark.parametrize("paths", [[None] * 3, ["a", "a", "b"]])
def test_images_without_distinct_paths_are_numbered(tmp_path, paths):
    source = open_source(write_images(tmp_path, paths, ["a", "b", "a"]))
    assert held(source) == [("0000001", 0, 0), ("0000002", 1, 1), ("0000003", 2, 0)]


@pytest.mark.parametrize("kind", ["Sequence", "List", ""])
def test_lists_of_numbers_have_the_files_names(tmp_path, kind):
    feature = {"feature": NAMES, "_type": kind} if kind else [NAMES]
    path = write_images(tmp_path, ["x", "y"], [[1, 2], [0]], feature)
    text = (tmp_path / "mine.toml").read_text()
    (tmp_path / "mine.toml").write_text('task = "multi"\n' + text)
    assert [x for _, _, x in held(open_source(path))] == [[0, 1, 1], [1, 0, 0]]


def test_numbers_without_a_name_are_named(tmp_path):
    path = write_images(tmp_path, ["x", "y"], [0, 3], NAMES)
    words = r"t\.parquet, line 2: label 3 in column 'class' .* the classes 0 to 2"
    with pytest.raises(ValueError, match=words):
        open_source(path)


def test_an_image_that_is_missing_or_cut_is_named(tmp_path):
    path = write_images(tmp_path, ["x", "y"], ["a", "b"])
    cells = [{"bytes": None, "path": "x"}, {"bytes": png(3)[:45], "path": "y"}]
    pq.write_table(
        pa.table({"path": cells, "class": ["a", "b"]}), tmp_path / "t.parquet"
    )
    source = open_source(path)
    with pytest.raises(ValueError, match=r"line 1, column 'path': no image; add it"):
        source[0]
    with pytest.raises(ValueError, match=r"line 2, column 'path': unreadable or cut"):
        source[1]


def test_images_of_measurements_are_refused(tmp_path):
    path = write_images(tmp_path, ["x", "y"], ["a", "b"])
    text = (tmp_path / "mine.toml").read_text()
    text = text.replace('rgb = "rgb"', 's2 = "s2_l2a"').replace("rgb =", "s2 =")
    (tmp_path / "mine.toml").write_text(text)
    words = r"column 'path' holds images of sensor s2_l2a in DN; only 8-bit pictures"
    with pytest.raises(ValueError, match=words):
        open_source(path)


LONG = "x" * 50_000


@pytest.mark.parametrize(
    "table",
    [
        {"path": ["a.png"], LONG: ["a"]},
        {"path": ["a.png"], "class": [{"a": LONG}]},
        {"path": [{"a": LONG}], "class": ["a"]},
        {"path": [b"\xff" * 50_000], "class": ["a"]},
        {"path": [LONG, "a.png"], "class": ["a", "b"]},
        {"path": [LONG, LONG], "class": ["a", "b"]},
        {"path": ["a.png"], "class": [[LONG]]},
        {"path": ["a.png"], "class": [f"[{LONG}]"]},
        {"path": ["a.png"], "class": [f"{LONG};a"]},
        {"path": ["a.png"], "class": [b"\xff" * 50_000]},
    ],
    ids=range(10),
)
def test_no_message_is_long(images, table):
    with pytest.raises(ValueError, match=r"t\.parquet") as error:
        open_source(write_parquet(images, table))
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize("count", [5, 100])
def test_an_unknown_label_is_not_told_at_length(images, count):
    classes = json.dumps([f"{i}{LONG}" for i in range(count)])
    path = write(images, LINES, top=f"classes = {classes}\n")
    with pytest.raises(ValueError, match="unknown label 'sea'") as error:
        open_source(path)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    "top",
    [
        f"classes = {json.dumps([LONG, LONG])}\n",
        f"classes = {json.dumps([*map(str, range(9000)), 'sea', 'sea'])}\n",
        f"templates = {json.dumps([LONG])}\n",
        f'separator = "{LONG}"\n',
        f'task = "{LONG}"\n',
        f'odd = "{LONG}"\n{LONG} = 1\n',
    ],
    ids=range(6),
)
def test_a_fault_of_the_dataset_file_is_not_told_at_length(images, top):
    with pytest.raises(ValueError, match=r"mine\.toml") as error:
        open_source(write(images, LINES, top=top))
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize("table", ["data", "data/part-*.parquet"])
def test_the_error_for_several_tables_joins_them(tmp_path, table):
    write_images(tmp_path, ["a.png", "b.png"], [2, 0], NAMES)
    (tmp_path / "data").mkdir()
    parts = pq.read_table(tmp_path / "t.parquet")
    for i in range(2):
        pq.write_table(parts.slice(i, 1), tmp_path / "data" / f"part-{i}.parquet")
    path = tmp_path / "mine.toml"
    text = path.read_text()
    path.write_text(text.replace("t.parquet", table))
    with pytest.raises(
        FileNotFoundError, match="a table is one file, so join"
    ) as error:
        open_source(str(path))
    command = str(error.value).partition("once: python")[2]
    subprocess.run(f"{sys.executable}{command}", shell=True, check=True)
    path.write_text(text.replace("t.parquet", "data/all.parquet"))
    source = open_source(str(path))
    assert source.dataset.classes == ("sea", "ice", "rock")
    assert held(source) == [("a.png", 0, 2), ("b.png", 1, 0)]
