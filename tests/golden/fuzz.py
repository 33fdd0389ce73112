"""Random texts of every kind that a tokenizer may get wrong; the same for a seed."""

import html
import html.entities

import numpy as np

# Letters of many scripts, marks, symbols, private use, lone surrogates, all planes.
BLOCKS = (
    *((0x20, 0x7F), (0xA0, 0x100), (0x100, 0x250), (0x250, 0x300), (0x370, 0x400)),
    *((0x400, 0x530), (0x530, 0x590), (0x900, 0xE00), (0xE00, 0x1000)),
    *((0x10A0, 0x1200), (0x1200, 0x13A0), (0x1780, 0x1800), (0x1E00, 0x2000)),
    *((0x2000, 0x2070), (0x2070, 0x20D0), (0x2100, 0x2400), (0x2460, 0x2500)),
    *((0x2500, 0x2800), (0x2C00, 0x2E00), (0x3000, 0x3040), (0xA000, 0xA4D0)),
    *((0xD800, 0xE000), (0xE000, 0xE100), (0xFB00, 0xFB50), (0xFE00, 0x10000)),
    *((0x10000, 0x10400), (0x1D400, 0x1D800), (0x1F100, 0x1F200), (0x10FF00, 0x110000)),
)
CJK = ((0x3040, 0x3100), (0x3400, 0x3500), (0x4E00, 0xA000), (0xAC00, 0xD7A4))
RIGHT_TO_LEFT = ((0x590, 0x600), (0x600, 0x780), (0x8A0, 0x900), (0x10900, 0x10920))
BIDI = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u061c"
EMOJI = ((0x1F300, 0x1F650), (0x1F680, 0x1F700), (0x1F900, 0x1FB00), (0x2600, 0x27C0))
MARKS = ((0x300, 0x370), (0x483, 0x488), (0x591, 0x5BE), (0x20D0, 0x20F1))
SPACES = [chr(i) for i in range(0x3001) if chr(i).isspace()]
SPACES += ["\u200b", "\u2060", "\ufeff", "\u180e", "\xad", "\u200c", "\u200d"]
WORDS = """an aerial photo of SAR Sentinel-2 forest's they'll river, 10m (VV/VH) 2020
Snow&Ice São façade naïve <start_of_text> <END_OF_TEXT> https://a.b/c?d=e&f Don't ÉTÉ
""".split()
NAMES = sorted(html.entities.html5)  # with ";" and, of the old ones, without
COUNT = 200  # texts of each kind


def fuzz_texts(rng: np.random.Generator) -> list[str]:
    """COUNT texts of each kind, COUNT mixtures of two, and the shortest ones."""
    kinds = (
        *(blocks, cjk, right_to_left, marks, words, emoji, entities, escaped),
        *(mojibake, spaces, controls, long),
    )
    texts = [kind(rng) for kind in kinds for _ in range(COUNT)]
    for _ in range(4 * COUNT):
        first, second = rng.choice(len(texts), 2)
        texts.append(texts[first][:300] + pick(rng, SPACES) + texts[second][:300])
    return ["", *SPACES, *texts]


def pick(rng: np.random.Generator, values):
    return values[int(rng.integers(len(values)))]


def letters(rng: np.random.Generator, ranges, longest: int = 40) -> str:
    """One to `longest` characters of one to three of the ranges."""
    some = [pick(rng, ranges) for _ in range(int(rng.integers(1, 4)))]
    count = int(rng.integers(1, longest + 1))
    return "".join(chr(int(rng.integers(*pick(rng, some)))) for _ in range(count))


def blocks(rng: np.random.Generator) -> str:
    return " ".join(letters(rng, BLOCKS, 20) for _ in range(int(rng.integers(1, 4))))


def cjk(rng: np.random.Generator) -> str:
    return (
        letters(rng, CJK) + pick(rng, ["。", "、", "！", " ", ""]) + letters(rng, CJK)
    )


def right_to_left(rng: np.random.Generator) -> str:
    parts = [letters(rng, RIGHT_TO_LEFT, 12), pick(rng, WORDS), "٣٤"]
    return pick(rng, BIDI).join(parts) + pick(rng, BIDI)


def marks(rng: np.random.Generator) -> str:
    """Letters, each with up to four combining marks."""
    text = letters(rng, BLOCKS[:8], 10)
    return "".join(c + letters(rng, MARKS, 4) for c in text)


def words(rng: np.random.Generator) -> str:
    count = int(rng.integers(1, 12))
    return " ".join(pick(rng, WORDS) for _ in range(count))


def emoji(rng: np.random.Generator) -> str:
    """Joined sequences, skin tones, flags, keycaps, flags of regions by tags."""
    joined = "\u200d".join(letters(rng, EMOJI, 1) for _ in range(int(rng.integers(5))))
    tags = "\U0001f3f4" + "".join(chr(0xE0000 + ord(c)) for c in "gbsct") + "\U000e007f"
    parts = [
        joined,
        letters(rng, EMOJI, 2) + pick(rng, "\U0001f3fb\U0001f3ff\ufe0e\ufe0f"),
        letters(rng, ((0x1F1E6, 0x1F200),), 4),
        pick(rng, "0123456789#*") + "\ufe0f\u20e3",
        tags,
        pick(rng, WORDS),
    ]
    chosen = rng.permutation(len(parts))[: int(rng.integers(1, 7))]
    return pick(rng, ["", " "]).join(parts[i] for i in chosen)


def entities(rng: np.random.Generator) -> str:
    """Valid, of unknown names, numbers out of range, and cut off."""
    number = int(pick(rng, [rng.integers(0x100), rng.integers(0x120000), 0xD800, 0]))
    forms = [
        *(f"&{pick(rng, NAMES)}", f"&{pick(rng, NAMES).rstrip(';')}", "&;", "&"),
        *(f"&#{number};", f"&#x{number:x};", f"&#{number}", f"&#X{number:X}", "&#;"),
        *("&unknown;", "&ampamp;", "&amp", "&lt;b&gt;", "<br/>", "&#xg;", "& amp;"),
    ]
    chosen = [pick(rng, forms) for _ in range(int(rng.integers(1, 8)))]
    return pick(rng, ["", " ", "a"]).join(chosen)


def escaped(rng: np.random.Generator) -> str:
    """Escaped one to four times over, with a "<", which ftfy heeds, or without."""
    text = pick(rng, [entities, words, emoji])(rng)
    for _ in range(int(rng.integers(1, 5))):
        text = html.escape(text, quote=bool(rng.integers(2)))
    return text + pick(rng, ["", "<", " <b>"])


def mojibake(rng: np.random.Generator) -> str:
    """UTF-8 read as Latin-1 or Windows-1252, once or twice, whole or in part."""
    text = pick(rng, [words, cjk, emoji, right_to_left, blocks])(rng)
    text = text.encode("utf-8", "ignore").decode("utf-8") + pick(rng, ["é", "’", "“ü”"])
    for _ in range(int(rng.integers(1, 3))):
        codec = pick(rng, ["latin-1", "cp1252", "cp1251", "macroman"])
        lost = pick(rng, ["replace", "ignore"])
        text = text.encode("utf-8").decode(codec, lost)
    return text + pick(rng, ["", " then é as it is", " — …"])


def spaces(rng: np.random.Generator) -> str:
    parts = [pick(rng, [*WORDS, "", "", ""]) for _ in range(int(rng.integers(1, 12)))]
    return "".join(pick(rng, SPACES) + part + pick(rng, SPACES) for part in parts)


def controls(rng: np.random.Generator) -> str:
    return letters(rng, ((0, 0x20), (0x7F, 0xA0), (0xFFF0, 0x10000), (0x41, 0x5B)))


def long(rng: np.random.Generator) -> str:
    """1,000 characters: of one, of few, or of text."""
    kind = pick(rng, [words, cjk, emoji, entities, mojibake, blocks, spaces])
    text = kind(rng) or "a"
    return (text * (1000 // len(text) + 1))[:1000]
