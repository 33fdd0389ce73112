"""The tokenizer in a Hugging Face folder is CLIP's, or is refused."""

import json

import pytest

from rsclip_jax.data.tokenizer import vocabulary_names
from rsclip_jax.models.variants import Variant
from rsclip_jax.weights.save import _save_hf_tokenizer
from rsclip_jax.weights.told.tokenizer import check_tokenizer

MINI = Variant("t", 8, 16, 8, 8, 1, 1, 8, 1, 1, "gelu")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    _save_hf_tokenizer(folder, MINI)
    return {p.name: p.read_text("utf-8") for p in folder.iterdir()}


def folder_of(tmp_path, files):
    for name, text in files.items():
        (tmp_path / name).write_text(text, "utf-8")
    return tmp_path


def whole(lower=True, **changes):
    """tokenizer.json as the tokenizers library writes CLIP's."""
    names, merges = vocabulary_names()
    vocab = {**names, "<|startoftext|>": 49406, "<|endoftext|>": 49407}
    model = {"type": "BPE", "vocab": vocab, "merges": [m.split(" ") for m in merges]}
    kinds = [{"type": "NFC"}, *([{"type": "Lowercase"}] if lower else [])]
    normalizer = {"type": "Sequence", "normalizers": kinds}
    return json.dumps({"normalizer": normalizer, "model": {**model, **changes}})


def test_clips_own_files_pass(tmp_path, written):
    check_tokenizer(tmp_path)  # none
    check_tokenizer(folder_of(tmp_path, {**written, "tokenizer.json": whole()}))


def test_a_vocabulary_of_the_same_size_with_other_ids_is_refused(tmp_path, written):
    vocab = json.loads(written["vocab.json"])
    vocab["!"], vocab['"'] = vocab['"'], vocab["!"]
    folder_of(tmp_path, {"vocab.json": json.dumps(vocab)})
    with pytest.raises(ValueError, match=r"vocab\.json: this is not CLIP's.*'!' is 1"):
        check_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("merges.txt", "#version: 0.2\ni n\n", "1 entries for CLIP's 48894"),
        ("tokenizer_config.json", '{"do_lower_case": false}', "do_lower_case"),
        ("tokenizer.json", whole(type="Unigram"), "a model of type 'Unigram'"),
        ("tokenizer.json", whole(lower=False), "no lower case"),
        ("tokenizer.json", whole(merges=[]), "0 entries"),
    ],
)
def test_another_tokenizer_is_refused(tmp_path, name, text, words):
    folder_of(tmp_path, {name: text})
    with pytest.raises(ValueError, match=words) as error:
        check_tokenizer(tmp_path)
    assert name in str(error.value)
