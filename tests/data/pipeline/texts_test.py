"""Texts: drawn from the class's prompts or the image's captions, and their groups."""

import numpy as np

from rsclip_jax.data.types import Dataset
from tests.helpers.numbered import ROWS, Numbers, assert_same, batches_of, take


def test_text_is_one_of_the_labels_own_captions_and_groups_are_classes():
    # a caption's tokens spell (source, class, template)
    def tokens_of(source, classes, templates):
        grid = np.indices((classes, templates))
        return np.stack([np.full_like(grid[0], source), *grid], -1).astype(np.int32)

    other = Numbers(12, first=100, classes=4, template="a {c}")
    sources = Numbers(12, classes=3), other
    tokens = tokens_of(0, 3, 2), tokens_of(1, 4, 5)
    class_of_group, templates = {}, {0: set(), 1: set()}
    for batch in take(30, batches_of(*sources, tokens=tokens)):
        assert batch["text"].shape == (4, 3)
        assert batch["text"].dtype == np.int32
        for i, (source, label, template) in enumerate(batch["text"].tolist()):
            assert label == batch["label"][i]
            assert source == (batch["rgb"][i, 0, 0, 0] >= 100)
            templates[source].add(template)
            group = int(batch["group"][i])
            assert class_of_group.setdefault(group, (source, label)) == (source, label)
    assert len(class_of_group) == len(set(class_of_group.values())) == 7
    assert templates == {0: set(range(2)), 1: set(range(5))}


def test_without_tokens_there_is_no_text():
    (batch,) = take(1, batches_of(Numbers(5)))
    assert batch.keys() == {"rgb", "s1", "label", "records"}


class Captioned(Numbers):
    """n records with 1 + i % 3 captions; every odd one has the same first caption."""

    def __init__(self, n, **options):
        super().__init__(n, classes=0, **options)
        self.dataset = Dataset("captioned", "captions", "captions", ROWS)

    def texts(self, i):
        first = "odd" if i % 2 else f"even {self.first + i}"
        return (first, *(f"{self.first + i}.{j}" for j in range(i % 3)))

    def __getitem__(self, index):
        return {**super().__getitem__(index), "captions": self.texts(index)}

    def tokens(self):
        """{caption: ids}, with different ids for each caption."""
        texts = sorted({text for i in range(self.n) for text in self.texts(i)})
        return {text: np.full(3, 500 + i, np.int32) for i, text in enumerate(texts)}


def examples(batches):
    """(number, ids, label, group) of every example."""
    for b in batches:
        pixels = b["rgb"][:, 0, 0, 0].tolist()
        labels, groups = b["label"].tolist(), b["group"].tolist()
        yield from zip(pixels, b["text"].tolist(), labels, groups, strict=True)


def test_an_image_gets_each_of_its_captions_and_no_others():
    source = Captioned(9)
    text_of = {ids[0]: text for text, ids in source.tokens().items()}
    seen, groups = {}, {}
    batches = take(60, batches_of(source, tokens=[source.tokens()]))
    for number, ids, label, group in examples(batches):
        assert label == -1
        seen.setdefault(number, set()).add(text_of[ids[0]])
        groups.setdefault(text_of[ids[0]], set()).add(group)
    assert seen == {i: set(source.texts(i)) for i in range(9)}
    # one group a caption, also where two images have it
    assert all(len(group) == 1 for group in groups.values())
    assert len(set.union(*groups.values())) == len(groups) == len(source.tokens())


def test_captions_and_classes_in_one_batch_have_separate_groups():
    labelled, captioned = Numbers(6, classes=3), Captioned(5, first=100)
    more = Numbers(4, first=200, classes=2, template="a {c}")
    classes = np.arange(9, dtype=np.int32).reshape(3, 1, 3)
    tokens = [classes, captioned.tokens(), 90 + classes[:2]]
    groups = {}
    batches = take(40, batches_of(labelled, captioned, more, tokens=tokens))
    for number, ids, label, group in examples(batches):
        groups[number if label >= 0 else ids[0]] = group
        if label >= 0:
            first = (90 if number >= 200 else 0) + 3 * label
            assert ids == [first, first + 1, first + 2]
        else:
            assert ids[0] >= 500
    n = len(captioned.tokens())
    want = {i: i % 3 for i in range(6)} | {500 + i: 3 + i for i in range(n)}
    assert groups == want | {200 + i: 3 + n + i % 2 for i in range(4)}


def test_equal_captions_share_a_group_across_datasets():
    sets = Captioned(5), Captioned(6, first=100)
    first, second = (source.tokens() for source in sets)
    second = {text: ids + len(first) for text, ids in second.items()}
    text_of = {int(x[0]): text for t in (first, second) for text, x in t.items()}
    group_of, drawn = {}, set()
    batches = take(60, batches_of(*sets, tokens=[first, second]))
    for _, ids, _, group in examples(batches):
        drawn.add(ids[0])
        assert group_of.setdefault(text_of[ids[0]], group) == group
    assert drawn == set(text_of)  # "odd" as both of its ids
    assert len(set(group_of.values())) == len(group_of) == len(text_of) - 1


def test_equal_classes_share_a_group_across_datasets():
    """Classes are equal in names and templates; in one dataset groups are labels."""
    sets = [Numbers(6, classes=3), Numbers(6, first=100, classes=4)]
    sets.append(Numbers(6, first=200, template="a {c}"))
    tokens = [np.zeros((len(s.dataset.classes), 1, 3), np.int32) for s in sets]
    groups = {0: {}, 100: {}, 200: {}}
    for n, _, label, group in examples(take(40, batches_of(*sets, tokens=tokens))):
        assert groups[n // 100 * 100].setdefault(label, group) == group
    assert groups[0] == {0: 0, 1: 1, 2: 2}
    assert groups[100] == {0: 0, 1: 1, 2: 2, 3: 3}
    assert groups[200] == {0: 4, 1: 5, 2: 6}


def test_a_stand_in_brings_its_own_captions(capsys):
    source = Captioned(6, broken=(2, 5))
    text_of = {ids[0]: text for text, ids in source.tokens().items()}
    tokens = [source.tokens()]
    batches = take(20, batches_of(source, tokens=tokens, on_error="skip"))
    for number, ids, _, _ in examples(batches):
        assert text_of[ids[0]] in source.texts(number)
        assert number not in (2, 5)
    assert "skipped train/2" in capsys.readouterr().err


def test_captions_depend_on_the_seed_and_not_on_the_threads():
    source = Captioned(10)
    runs = [
        take(9, batches_of(source, tokens=[source.tokens()], threads=n, seed=s))
        for n, s in ((1, 0), (4, 0), (1, 1))
    ]
    assert_same(runs[0], runs[1])
    texts = [np.concatenate([b["text"] for b in run]) for run in runs]
    assert not np.array_equal(texts[0], texts[2])
