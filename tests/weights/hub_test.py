"""Weights by name: fetched from a hub, found in its cache, placed by hand."""

import dataclasses
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors

import rsclip_jax
from rsclip_jax.models.variants import VARIANTS, get_variant
from rsclip_jax.weights import PRETRAINED, fetch, hub, load_clip, pretrained, save_clip
from rsclip_jax.weights.encoders import ENCODERS
from rsclip_jax.weights.pins import DIGESTS, PINS
from tests.conftest import REPO
from tests.golden import FOLDER, toy_variant
from tests.helpers import siglips
from tests.helpers.fake_hub import serving

TOY = FOLDER / "clip_toy_quick_gelu_hf"
TOY_WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
FIRST, SECOND = "1" * 40, "2" * 40
# huggingface_hub reads its environment when it is imported: each hub its own process.
CLIENT = """
import json, sys, time
import rsclip_jax
from rsclip_jax.weights import fetch, hub
from rsclip_jax.weights.pretrained import find_pretrained
hub.TIMEOUT = 1
for line in sys.stdin:
    name, *arguments = json.loads(line)
    started = time.perf_counter()
    try:
        if name == "load":
            model = rsclip_jax.load(*arguments)
            row = model.variant
            said = {**model.source, "activation": row.activation, **model.digests}
        elif name == "find":
            said = find_pretrained(*arguments).origin
        else:
            said = {"path": str(fetch(*arguments))}
    except (ValueError, OSError) as error:
        said = {"error": str(error), "type": type(error).__name__}
    said["seconds"] = time.perf_counter() - started
    print(json.dumps(said), flush=True)
"""


class Client:
    """rsclip_jax in a process of its own, which asks the hub at `url`."""

    def __init__(self, url: str, home: Path, **environment: str):
        self.process = subprocess.Popen(
            [sys.executable, "-c", CLIENT],
            cwd=REPO,
            env={
                **os.environ,
                "HF_ENDPOINT": url,
                "HF_HOME": str(home),
                "HF_HUB_CACHE": str(home / "hub"),
                "HF_HUB_OFFLINE": "",
                "RSCLIP_WEIGHTS": str(home / "placed"),
                "NO_PROXY": "127.0.0.1",
                **environment,
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, *words: str | None) -> dict:
        print(json.dumps(words), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def load(self, name: str) -> dict:
        """Model.source of a loaded name, with activation and digest; or the error."""
        return self.ask("load", name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with self.process:
            self.process.stdin.close()


@pytest.fixture(scope="module")
def server():
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def client(server, tmp_path_factory):
    with Client(server.url, tmp_path_factory.mktemp("home")) as running:
        yield running


@pytest.fixture
def publish(server, tmp_path):
    """publish(repository, {name: file to copy, or text}, commit) at the hub.

    commit: by default the one that a name has, or FIRST.
    """

    def run(repository, files, commit=""):
        commit = commit or PINS.get(repository, FIRST)
        folder = tmp_path / "published" / repository / commit
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Path):
                shutil.copy(content, path)
            else:
                path.write_text(content)
        server.repositories.setdefault(repository, {})[commit] = folder
        server.gets()

    return run


def toy_files(**more):
    return {name: TOY / name for name in ("config.json", "model.safetensors")} | more


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_repository_is_fetched_once_and_only_what_is_read(client, server, publish):
    other = {"pytorch_model.bin": "not read", "README.md": "a model"}
    publish("me/toy", toy_files(**other))
    said = client.load("hf:me/toy")
    assert said["name"] == "hf:me/toy"
    assert said["path"] == f"hf:me/toy@{FIRST}"
    assert said["revision"] == FIRST
    files = {name: sha256(TOY / name) for name in toy_files()}
    assert said["files"] == files
    assert said["activation"] == "quick_gelu"  # config.json's
    assert server.gets() == sorted(files)
    again = client.load("hf:me/toy")
    assert again["files"] == files
    assert server.gets() == []
    assert client.load(said["path"])["clip"] == said["clip"]
    assert server.gets() == []


def test_a_name_has_its_commit_and_a_repository_of_ones_choice_the_newest(
    client, server, publish
):
    repository = "openai/clip-vit-base-patch16"
    publish(repository, toy_files())
    publish(
        repository, {n: FOLDER / "clip_toy_gelu_hf" / n for n in toy_files()}, SECOND
    )
    named = client.ask("find", "OpenAI-ViT-B-16")
    assert named["revision"] == PINS[repository]
    assert named["path"] == f"hf:{repository}@{PINS[repository]}"
    assert client.ask("find", f"hf:{repository}")["revision"] == SECOND
    assert client.ask("find", named["path"])["revision"] == PINS[repository]
    path = client.ask("fetch", repository, "config.json", None, PINS[repository])[
        "path"
    ]
    assert Path(path).read_bytes() == (TOY / "config.json").read_bytes()
    del server.repositories[repository][PINS[repository]]
    with Client(server.url, Path(path).parent / "none") as fresh:
        error = fresh.ask("find", "OpenAI-ViT-B-16")["error"]
    assert f"it has no revision '{PINS[repository]}'; download" in error


def test_commits_are_of_repositories_whose_weights_have_a_name():
    rows = (*PRETRAINED.values(), *ENCODERS.values())
    assert PINS.keys() <= {row.repository for row in rows}
    assert all(re.fullmatch("[0-9a-f]{40}", commit) for commit in PINS.values())


def test_the_newest_commit_is_fetched_and_the_pinned_one_stays(client, server, publish):
    publish("me/moving", toy_files())
    old = client.load("hf:me/moving")
    gelu = FOLDER / "clip_toy_gelu_hf"
    publish("me/moving", {n: gelu / n for n in toy_files()}, SECOND)
    new = client.load("hf:me/moving")
    assert (old["revision"], new["revision"]) == (FIRST, SECOND)
    assert (old["activation"], new["activation"]) == ("quick_gelu", "gelu")
    server.gets()
    assert client.load(old["path"])["activation"] == "quick_gelu"
    assert server.gets() == []
    server.tags["v1"] = FIRST
    assert client.load("hf:me/moving@v1")["revision"] == FIRST
    missing = client.load("hf:me/moving@v2")["error"]
    assert missing.startswith("hf:me/moving: it has no revision 'v2'; download")


def test_shards_come_with_their_index(client, server, publish):
    names = {"config.json": TOY / "config.json", "one.safetensors": TOY / TOY_WEIGHTS}
    with_index = {**names, INDEX: index_of("one.safetensors")}
    publish("me/shards", with_index)
    said = client.load("hf:me/shards")
    assert server.gets() == sorted(with_index)
    assert set(said["files"]) == set(with_index)
    publish("me/deep", {f"a/b/{n}": c for n, c in with_index.items()})
    deep = client.load("hf:me/deep/a/b")
    assert deep["path"] == f"hf:me/deep/a/b@{FIRST}"
    assert deep["files"] == said["files"]
    assert deep["clip"] == said["clip"]
    publish("me/index", {f"a/{n}": c for n, c in with_index.items()})
    client.load(f"hf:me/index/a/{INDEX}")  # a usual name, so with its config
    assert server.gets() == ["a/config.json", f"a/{INDEX}", "a/one.safetensors"]


def index_of(shard):
    names = safetensors.safe_open(TOY / TOY_WEIGHTS, framework="np").keys()
    return json.dumps({"weight_map": dict.fromkeys(names, shard)})


def test_one_file_of_any_kind(client, server, publish):
    publish("me/files", {"ckpt/encoder.pth": TOY / "config.json"})
    first = client.ask("fetch", "me/files", "ckpt/encoder.pth")
    assert sha256(Path(first["path"])) == sha256(TOY / "config.json")
    assert server.gets() == ["ckpt/encoder.pth"]
    again = client.ask("fetch", "me/files", "ckpt/encoder.pth", FIRST)
    assert again["path"] == first["path"]
    assert server.gets() == []
    assert (
        "has no file encoder.pth; it has ckpt/encoder.pth:"
        in (client.ask("fetch", "me/files", "encoder.pth")["error"])
    )


def test_what_the_hub_refuses_is_one_line(client, server, publish):
    named = {"RemoteCLIP-RN50.pt": "x", "README.md": "x", "RemoteCLIP-ViT-B-32.pt": "x"}
    publish("chen/odd", named)
    assert client.load("hf:chen/odd")["error"] == (
        "hf:chen/odd: the repository has no usual weight file; it has"
        " RemoteCLIP-RN50.pt, RemoteCLIP-ViT-B-32.pt, README.md: name one, such as"
        " hf:chen/odd/RemoteCLIP-RN50.pt"
    )
    nobody = client.load("hf:no/body")
    assert nobody["type"] == "FileNotFoundError"
    assert "no such repository" in nobody["error"]
    publish("me/gated", toy_files())
    server.gated.add("me/gated")
    gated = client.load("hf:me/gated")["error"]
    assert "accept the terms" in gated
    assert "HF_TOKEN" in gated
    assert all(len(line.splitlines()) == 1 for line in (nobody["error"], gated))


def test_without_the_hub_its_cache_serves(server, publish, tmp_path):
    publish("me/kept", toy_files())
    with Client(server.url, tmp_path) as online:
        said = online.load("hf:me/kept")
    for url, more in (
        ("http://127.0.0.1:9", {}),  # nothing listens there
        (server.url, {"HF_HUB_OFFLINE": "1"}),
    ):
        with Client(url, tmp_path, **more) as away:
            found = away.load("hf:me/kept")
            assert {**found, "seconds": 0} == {**said, "seconds": 0}
            pinned = away.load(said["path"])
            assert pinned["clip"] == said["clip"]
            file = away.ask("fetch", "me/kept", "config.json")
            assert sha256(Path(file["path"])) == sha256(TOY / "config.json")
            missing = away.load("hf:me/else/a.pt")
            place = tmp_path / "placed" / "me--else" / "a.pt"
            assert missing["error"].endswith(f"or put it at {place}")
            assert missing["error"].startswith("hf:me/else: ")
            assert "download a.pt by hand from repository me/else" in missing["error"]
            assert len(missing["error"].splitlines()) == 1
            whole = away.load("hf:me/else")["error"]
            assert "download its weight file and config (model.safetensors," in whole
            assert whole.endswith(f"or put it at {place.parent}")
            assert max(x["seconds"] for x in (pinned, file, missing)) < 5
    assert "HF_HUB_OFFLINE is set" in missing["error"]


def test_a_hub_that_does_not_answer_is_given_up_soon(tmp_path):
    with serving() as server, Client(server.url, tmp_path) as client:
        server.silent = True
        said = client.load("RemoteCLIP-ViT-B-32")
        server.silent = False
    assert said["type"] == "FileNotFoundError"
    assert "chendelong/RemoteCLIP" in said["error"]
    assert "RemoteCLIP-ViT-B-32.pt" in said["error"]
    assert said["seconds"] < 15  # the hub client alone would try for 23


@pytest.fixture
def placed(tmp_path, monkeypatch):
    """The folder of hand-placed files; whoever would ask a hub fails."""

    def asked(*_):
        raise AssertionError("the hub was asked")

    monkeypatch.setenv("RSCLIP_WEIGHTS", str(tmp_path / "placed"))
    monkeypatch.setattr(hub, "_look_up", asked)
    return tmp_path / "placed"


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("hf:me/toy", "me--toy"),
        ("hf:me/toy@v1", "me--toy@v1"),
        ("hf:me/toy/clip@refs/pr/2", "me--toy@refs--pr--2/clip"),
    ],
)
def test_hand_placed_files_go_before_the_hub(placed, name, where):
    shutil.copytree(TOY, placed / where)
    model = rsclip_jax.load(name)
    _, params = load_clip(TOY)
    jax.tree.map(np.testing.assert_array_equal, model.params, params)
    assert model.source == {
        "name": name,
        "path": str(placed / where),
        "files": {p.name: sha256(p) for p in TOY.iterdir()},
    }


def test_a_placed_file_of_another_revision_is_not_taken(placed):
    shutil.copytree(TOY, placed / "me--toy@v1")
    for name in ("hf:me/toy", "hf:me/toy@v2"):
        with pytest.raises(AssertionError, match="the hub was asked"):
            rsclip_jax.load(name)


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_a_row_says_what_a_bare_file_does_not(placed, monkeypatch, activation):
    """By its name, and by the file's hf: name; what the caller says goes before."""
    row = pretrained.Pretrained(
        "Toy", "me/bare", "ckpt/toy.safetensors", toy_variant(activation), ""
    )
    monkeypatch.setitem(PRETRAINED, "Toy", row)
    (placed / "me--bare/ckpt").mkdir(parents=True)
    file = placed / "me--bare/ckpt/toy.safetensors"
    shutil.copy(FOLDER / "clip_toy_gelu.safetensors", file)
    for name in ("Toy", "hf:me/bare/ckpt/toy.safetensors"):
        model = rsclip_jax.load(name)
        assert model.variant == toy_variant(activation)
        assert model.source["files"] == {"toy.safetensors": sha256(file)}
        other = {"quick_gelu": "gelu", "gelu": "quick_gelu"}[activation]
        said = rsclip_jax.load(name, activation=other).variant
        assert said == toy_variant(other)
    assert fetch("me/bare", "ckpt/toy.safetensors") == file


def test_what_is_not_on_the_hub_says_where_it_is(placed):
    with pytest.raises(FileNotFoundError, match=r"SkyScript on GitHub links") as error:
        rsclip_jax.load("SkyCLIP-ViT-L-14")
    place = placed / "wangzhecheng--SkyScript/SkyCLIP_ViT_L14_top30pct/epoch_20.pt"
    assert str(error.value).endswith(f"put it at {place}")


def test_a_path_goes_before_a_name(placed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(TOY, tmp_path / "SkyCLIP-ViT-L-14")
    model = rsclip_jax.load("SkyCLIP-ViT-L-14")
    assert model.source["path"] == str(tmp_path / "SkyCLIP-ViT-L-14")
    assert "name" not in model.source


# By hand, from the sources that weights/pretrained.py names.
ACTIVATIONS = {
    "OpenAI-ViT-B-32": "quick_gelu",
    "OpenAI-ViT-B-16": "quick_gelu",
    "OpenAI-ViT-L-14": "quick_gelu",
    "OpenAI-ViT-L-14-336": "quick_gelu",
    "LAION2B-ViT-B-32": "gelu",
    "LAION2B-ViT-L-14": "gelu",
    "LAION2B-ViT-H-14": "gelu",
    "LAION2B-ViT-bigG-14": "gelu",
    "RemoteCLIP-RN50": "quick_gelu",
    "RemoteCLIP-ViT-B-32": "quick_gelu",
    "RemoteCLIP-ViT-L-14": "quick_gelu",
    "GeoRSCLIP-ViT-B-32": "quick_gelu",
    "GeoRSCLIP-ViT-H-14": "gelu",
    "SkyCLIP-ViT-B-32": "gelu",
    "SkyCLIP-ViT-L-14": "quick_gelu",
    "FarSLIP-ViT-B-32": "quick_gelu",
    "Llama3-MS-CLIP-base": "gelu",
}
# By the model cards on the hub and SkyScript's LICENSE; of the others we read none.
LICENCES = {
    "GeoRSCLIP-ViT-B-32": "cc",
    "GeoRSCLIP-ViT-H-14": "cc",
    "LAION2B-ViT-B-32": "MIT",
    "SkyCLIP-ViT-B-32": "MIT",
    "SkyCLIP-ViT-L-14": "MIT",
    "FarSLIP-ViT-B-32": "MIT",
    "Llama3-MS-CLIP-base": "llama3",
    "SigLIP-ViT-B-16-256": "apache-2.0",
}


def test_licences_are_those_that_were_read():
    assert {k: r.licence for k, r in PRETRAINED.items() if r.licence} == LICENCES


def test_a_file_of_another_sha256_than_the_published_is_refused(placed, monkeypatch):
    row = PRETRAINED["RemoteCLIP-ViT-B-32"]
    toy = dataclasses.replace(row, variant=toy_variant("gelu"))
    monkeypatch.setitem(PRETRAINED, row.name, toy)
    file = placed / "chendelong--RemoteCLIP" / row.file
    file.parent.mkdir(parents=True)
    shutil.copy(FOLDER / "clip_toy_training.pt", file)
    with pytest.raises(ValueError, match=r"RemoteCLIP-ViT-B-32\.pt has the sha256"):
        rsclip_jax.load(row.name)
    known = {row.repository: {row.file: sha256(file)}}
    monkeypatch.setattr(pretrained, "DIGESTS", known)
    told = rsclip_jax.load(row.name).source
    assert told["files"] == {row.file: sha256(file)}
    rows = {r.repository for r in PRETRAINED.values()}
    assert DIGESTS.keys() <= rows
    listed = [d for files in DIGESTS.values() for d in files.values()]
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in listed)


def test_a_licence_is_recorded_with_the_weights(placed, monkeypatch):
    row = PRETRAINED["FarSLIP-ViT-B-32"]
    toy = dataclasses.replace(row, variant=toy_variant("gelu"), file="toy.safetensors")
    monkeypatch.setitem(PRETRAINED, row.name, toy)
    folder = placed / "ZhenShiL--FarSLIP"
    folder.mkdir(parents=True)
    shutil.copy(FOLDER / "clip_toy_gelu.safetensors", folder / "toy.safetensors")
    assert rsclip_jax.load(row.name).source["licence"] == "MIT"


def test_a_siglips_row_is_its_repositorys_folder(placed):
    """With its tokenizer; its config says all that the row does not."""
    variant = siglips.toy_variant()
    params = siglips.toy_params(variant)
    save_clip(placed / "lcybuaa--Git-RSCLIP-base", variant, params, "hf")
    model = rsclip_jax.load("Git-RSCLIP-base")
    assert model.variant.family == "siglip"
    assert model.source["name"] == "Git-RSCLIP-base"
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= set(
        model.source["files"]
    )
    assert model.encode_text("a river").shape == (1, 48)


def test_every_row_has_its_architecture_and_activation():
    told = {k: row for k, row in PRETRAINED.items() if row.variant}
    found = {k: get_variant(row.variant).activation for k, row in told.items()}
    assert found == ACTIVATIONS
    asked = set(PRETRAINED) - set(told)
    assert asked == {"SigLIP-ViT-B-16-256", "Git-RSCLIP-base", "Git-RSCLIP-large"}
    resnet = get_variant(PRETRAINED["RemoteCLIP-RN50"].variant)
    assert resnet.vision_layers == (3, 4, 6, 3)
    ms_clip = PRETRAINED["Llama3-MS-CLIP-base"]
    assert get_variant(ms_clip.variant) == get_variant("ViT-B-16")
    assert ms_clip.sensor.bands[:3] == ("B02", "B03", "B04")
    for name, row in told.items():
        if name == "RemoteCLIP-RN50" or row.sensor:
            continue
        v = get_variant(row.variant)
        size, patch = name.partition("-")[2].removeprefix("ViT-").split("-")[:2]
        assert v.patch_size == int(patch)
        widths = {"B": 768, "L": 1024, "H": 1280, "bigG": 1664}
        assert v.vision_width == widths[size]
        assert v.image_size == (336 if name.endswith("-336") else 224)
        assert bool(row.published) == name.startswith("SkyCLIP")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("remoteclip-vit-b32", "did you mean 'RemoteCLIP-ViT-B-32'? Known: OpenAI"),
        ("openai/clip-vit-base-patch32", "mean 'hf:openai/clip-vit-base-patch32'?"),
        (
            "ViT-H-14",
            "an architecture; give the name of its weights: LAION2B-ViT-H-14, GeoRS",
        ),
        ("mini", "'mini' is an architecture; give the name of its weights; none"),
        ("hf:openai", "not of the form hf:OWNER/NAME"),
        ("hf:me/toy/../../x.pt", "not a path within a repository"),
        ("hf:../toy", "not of the form owner/name"),
    ],
)
def test_a_wrong_name_is_answered_with_the_right_one(placed, name, words):
    with pytest.raises((FileNotFoundError, ValueError)) as error:
        rsclip_jax.load(name)
    assert words in str(error.value)
    assert "not a weight file" in str(error.value) or name.startswith("hf:")


def test_every_architecture_is_answered(placed):
    for name in VARIANTS:
        assert f"'{name}' is an architecture" in pretrained.suggest(name)
