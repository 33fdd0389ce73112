"""Texts that a tokenizer may get wrong: class names, traps, and random strings."""

import html
import random

CLASSES = """
annual crop land; forest; brushland or shrubland; highway or road; industrial buildings
or commercial buildings; pasture land; permanent crop land; residential buildings or
homes or apartments; river; lake or sea; AnnualCrop; HerbaceousVegetation; SeaLake;
airplane; airport; baseball diamond; basketball court; beach; bridge; chaparral; church;
circular farmland; cloud; commercial area; dense residential; desert; freeway; golf
course; ground track field; harbor; industrial area; intersection; island; lake; meadow;
medium residential; mobile home park; mountain; overpass; palace; parking lot; railway;
railway station; rectangular farmland; roundabout; runway; sea ice; ship; snowberg;
sparse residential; stadium; storage tank; tennis court; terrace; thermal power station;
wetland; agricultural; buildings; mobilehomepark; storagetanks; golfcourse; Urban
fabric; Continuous urban fabric; Discontinuous urban fabric; Industrial or commercial
units; Road and rail networks and associated land; Port areas; Airports; Mineral
extraction sites; Dump sites; Construction sites; Green urban areas; Sport and leisure
facilities; Arable land; Non-irrigated arable land; Permanently irrigated land; Rice
fields; Vineyards; Fruit trees and berry plantations; Olive groves; Pastures; Permanent
crops; Annual crops associated with permanent crops; Complex cultivation patterns; Land
principally occupied by agriculture, with significant areas of natural vegetation;
Agro-forestry areas; Broad-leaved forest; Coniferous forest; Mixed forest; Natural
grassland and sparsely vegetated areas; Moors, heathland and sclerophyllous vegetation;
Transitional woodland/shrub; Beaches, dunes, sands; Bare rock; Sparsely vegetated areas;
Burnt areas; Inland marshes; Peatbogs; Salt marshes; Salines; Intertidal flats; Water
courses; Water bodies; Coastal lagoons; Estuaries; Sea and ocean; Inland wetlands;
Coastal wetlands; Inland waters; Marine waters; Savanna; Barren; Snow/Ice; compact
high-rise; open low-rise; lightweight low-rise; LCZ 4; tench; great white shark;
cockatiel; lorikeet; Gila monster; jack-o'-lantern; yellow lady's slipper; hot dog; can
opener; t-shirt
"""
TEMPLATES = """
a centered satellite photo of {c}.|a centered satellite photo of a {c}.|a centered
satellite photo of the {c}.|satellite imagery of {c}.|aerial imagery of {c}.|satellite
photo of {c}.|aerial photo of {c}.|satellite view of {c}.|aerial view of {c}.|satellite
imagery of a {c}.|aerial imagery of a {c}.|satellite photo of a {c}.|aerial photo of a
{c}.|satellite view of a {c}.|aerial view of a {c}.|satellite imagery of the {c}.|aerial
imagery of the {c}.|satellite photo of the {c}.|aerial photo of the {c}.|satellite view
of the {c}.|aerial view of the {c}.|a photo of a {c}.|a bad photo of a {c}.|itap of a
{c}.|a origami {c}.|a photo of the large {c}.|a {c} in a video game.|art of the {c}.|a
Sentinel-1 SAR (VV/VH) image of {c}.|a Sentinel-2 L2A composite of {c}, 10 m/px.|an
infrared image of {c}.|{c}
"""
# fmt: off
TRICKY = (
    "", " ", "\t\n", ".", "a", "I", "0", "!", "é", "中", "🛰", "'", "<", "&", "_", "--",
    # white space and control characters
    "hello world", "HELLO World", "  two  spaces ", "a\tb\nc\r\nd\x0be\x0cf", "a b",
    "no\u00a0break", "en\u2002em\u2003thin\u2009", "a\u3000b", "a\u2028b\u2029c",
    "zero\u200bwidth\u200djoin\ufeffbom", "soft\u00adhyphen", "a\x85b", "\u180eab",
    "a\x00b\x01c\x07d\x1be\x7ff", "\x1b[31mred\x1b[0m", "a\x1cb\x1db\x1eb\x1fb",
    "\ud800", "a\udcffb", "\ud83d\ude80", "\U0010ffff", "\ue000", "\x80\x9f", "\xad",
    # contractions and numbers
    "it's we're I've I'm you'll he'd can't", "IT'S WE'RE", "'s't're've'm'll'd", "''s",
    "o'clock rock'n'roll", "it\u2019s \u201cquoted\u201d", "'\u017f \u017ft", "'S 'LL",
    "2020", "3.14159", "1,000,000", "10m", "m2", "Ⅷ ½ ²", "٣٤٥", "१२३", "x86-64",
    # HTML entities, escaped once, twice and wrongly; beside a "<" ftfy leaves them
    "<b>R&amp;amp;D</b>", "1 < 2 &lt; 3 &amp;lt; 4 &amp;amp;lt; 5 &amp;amp;amp;lt; 6",
    "&amp;", "&amp;amp;", "&amp;amp;amp;", "&lt;b&gt;bold&lt;/b&gt;", "&nbsp;x&nbsp;",
    "&quot;q&quot; &#39;a&#39; &#x27;b&#x27;", "&#128752; &#x1F6F0;", "&amp;#233;",
    "&eacute;t&eacute;", "AT&T", "R&D &c", "&unknown; &notit;", "&#0; &#xD800; &#x85;",
    "&amp;lt;end&amp;gt;", "&copy; 2024 ESA", "caf&amp;eacute;", "&#28;a&#x9;b&#10;c",
    # mojibake, ligatures, letter case, combining marks
    "cafÃ©", "â€œquotesâ€\x9d", "schÃ¶n", "donâ€™t", "âœ” mojibake", "l’humanitÃ©",
    "Ð¿Ñ\x80Ð¸Ð²ÐµÑ‚", "ã\x81\x93ã\x82\x93", "Ã¢â‚¬â„¢", "Â©", "Â£5", "ï»¿bom",
    "ﬁne ﬂow oﬀice ﬅ", "ｆｕｌｌｗｉｄｔｈ １２３", "Ǆ ĳ ŉ", "ſtraſſe STRASSE straße",
    "İstanbul ISPARTA ı", "ΣΊΣΥΦΟΣ ΟΔΟΣ", "ÅNGSTRÖM \u212b A\u030a", "ÉCOLE", "ẞ",
    "e\u0301 e\u0300 n\u0303 a\u030a", "Z̸̡̛͇a̴l̵g̶o̷", "a\u0301\u0301\u0301", "\u0301",
    # other scripts, emoji, symbols
    "卫星图像中的森林", "衛星から見た森林です", "위성 사진", "这是 SAR 图像。",
    "صورة فضائية لغابة", "תמונת לוויין", "اَلْعَرَبِيَّةُ", "\u202eabc\u202c", "فارسی\u200cها",
    "спутниковый снимок леса", "δορυφορική εικόνα", "उपग्रह चित्र", "ภาพถ่ายดาวเทียม",
    "🌍🌲🛰️", "👨‍👩‍👧‍👦 family", "👍🏽", "🇬🇷🇫🇷", "☀️ ☁ ❄", "a🌊b", "🌍" * 30, "1️⃣",
    "℃ ™ ① ㎡ №", "𝒻𝒶𝓃𝒸𝓎 𝕋𝔼𝕏𝕋", "ᵘᵖ ₁₂", "→ ≤ ∞ √2", "€£¥₿", "「…」—–", "\ufffd",
    # special tokens by name, and what looks like markup
    "<start_of_text>", "<end_of_text>", "a <END_OF_TEXT> b", "<start_of_text", "<|>",
    "<|startoftext|>", "a <|endoftext|> b", "</w>", "a</w>b", "<\u017ftart_of_text>",
    "https://example.org/a?b=c&d=%20", "name@example.org", "C:\\dir\\x.tif", "S2B_L1C",
    "#hashtag @user", "snake_case", "camelCase", "co-operate", "a/b/c", "(x+y)=z;",
    "!!!!!!", "?!...", "\"'`´", "¡¿", "$$$ %%%", "{c} {} [0]", "\\n\\t", "^~|", "__",
    # as long as fits, longer, and much longer
    "a " * 75, "a " * 76, "é" * 76, "!" * 76, "x" * 1000, "word " * 200, "éàü" * 334,
    "1" * 1000, "森" * 1000, "a1" * 500, "." * 1000, "aaaaaaaa", "abababab", "zzyzx",
    "supercalifragilisticexpialidocious", "pneumonoultramicroscopicsilicosis " * 9,
)
# fmt: on
ALPHABETS = (
    "abcdefghijklmnopqrstuvwxyz",
    "ETAOINetaoin  '",
    "0123456789.,-+",
    " !\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~",
    " \t\n\u00a0\u2003\u200b",
    "".join(map(chr, range(0xA0, 0x180))),
    "".join(map(chr, range(0x20))),
    "αβγδεζηθΑΒΓΔабвгдежзАБВГДЕ",
    "的一是在不了有和人这中大为上个国",
    "ابتثجحخدذرזחטיכלमनपफ",
    "🌍🌲🛰🚀👍🏽\u200d\ufe0f☀❄",
    "\u0300\u0301\u0302\u0303\u0308\u0327e",
    "&amp;lt;#39;quot",
    "Ã©â€™Â",
)


def corpus() -> list[str]:
    """Class names in templates, hand-made traps, and 300 seeded random strings."""
    classes = [c.strip() for c in " ".join(CLASSES.split()).split(";")]
    templates = [t.strip() for t in " ".join(TEMPLATES.split()).split("|")]
    texts = [templates[i % len(templates)].format(c=c) for i, c in enumerate(classes)]
    texts += [t.format(c="forest") for t in templates] + list(TRICKY)
    rng = random.Random(0)
    for _ in range(300):
        letters = "".join(rng.sample(ALPHABETS, rng.randint(1, 4)))
        text = "".join(rng.choices(letters, k=rng.randint(1, 40)))
        texts.append(html.escape(text) if rng.random() < 0.1 else text)
    return list(dict.fromkeys(texts))
