"""Words, units and n-grams in many scripts, one rule for all stages."""

import random
import re
import sys
import unicodedata

import numpy as np
import pytest
import regex

from prosemill.text.ngrams import ngrams, shingles_of
from prosemill.text.scripts import ALONE, IGNORED, LETTER, MARK, SEPARATOR, count_letters, is_unspaced, kinds, unsettled
from prosemill.text.words import words

EVERY = [*range(0xD800), *range(0xE000, 0x110000)]

# What was a word before marks belonged to one.
FORMER_ALONE = (
    "\u2e80-\u2fdf\u3005-\u3007\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff\uac00-\ud7a3"
    "\uff66-\uff9f"
)
FORMER = re.compile(rf"[{FORMER_ALONE}]|[^\W{FORMER_ALONE}]+")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("किताब, कीताब। कितने", "किताब कीताब कितने"),  # Devanagari
        ("தமிழ் மொழி", "தமிழ் மொழி"),
        ("বাংলা ভাষা।", "বাংলা ভাষা"),
        ("తెలుగు భాష", "తెలుగు భాష"),
        ("ਪੰਜਾਬੀ ਭਾਸ਼ਾ", "ਪੰਜਾਬੀ ਭਾਸ\u0a3cਾ"),  # NFC spells this letter with a dot
        ("മലയാളം ഭാഷ", "മലയാളം ഭാഷ"),
        ("සිංහල ශ්\u200dරී", "සිංහල ශ්රී"),  # Sinhala, a conjunct by a joiner
        ("สวัสดี กำ ปี๒๕๖๗", "ส วั ส ดี กำ ปี ๒๕๖๗"),  # Thai; its digits make a number
        ("ພາສາ ກຳ", "ພ າ ສ າ ກຳ"),  # Lao
        ("ភាសាខ្មែរ", "ភា សា ខ្ មែ រ"),  # Khmer
        ("မြန်မာ", "မြ န် မာ"),  # Myanmar
        ("བོད་སྐད།", "བོད སྐད"),  # Tibetan syllables
        ("كِتَاب كتاب", "كِتَاب كتاب"),
        ("שָׁלוֹם שלום", "שָׁלוֹם שלום"),
        ("می\u200cخواهم", "میخواهم"),  # Persian: a joiner tears no word, and is not a letter of it
        ("क्\u200cष क्\u200dष", "क्ष क्ष"),
        ("за́мок замо́к", "за́мок замо́к"),  # castle and lock
        ("ქართული ᲥᲐᲠᲗᲣᲚᲘ", "ქართული ქართული"),  # Georgian
        ("Հայերեն և", "հայերեն և"),  # Armenian
        ("ΟΔΟΣ Σας", "οδος σας"),
        ("ISPARTA İzmir ılık", "isparta i\u0307zmir ılık"),  # Turkish, as str.lower has it in any language
        ("Straße", "straße"),
        ("磨坊Mill 2台。のは", "磨 坊 mill 2 台 の は"),
        ("ラーメン・ﾊﾟ", "ラ ー メ ン ﾊﾟ"),
        ("か\u3099ハ\u309a", "が パ"),  # kana with combining voice marks
        ("葛\U000e0100飾", "葛 飾"),  # a variant of the glyph, not another character
        ("\U00020000\U00030000\U000323b0", "\U00020000 \U00030000 \U000323b0"),  # ideographs of extensions B to H
        ("한글은 ㅋㅋ", "한 글 은 ㅋ ㅋ"),
        ("\u1100\u1161\u11a8", "각"),
        ("\u115f\u1161 \u1112\u119e\u11ab", "\u1112\u119e\u11ab"),  # a syllable of old Korean
        ("👩\u200d👩\u200d👧\u200d👦 ❤\ufe0f a1\ufe0f\u20e3", "a1\u20e3"),
        ("٣٤ १२ 12 １２", "٣٤ १२ 12 １２"),
        ("co\u00adoperate don't snake_case", "cooperate don t snake_case"),
        ("\u0301a … \u0301", "a"),  # marks of no letter
        ("", ""),
    ],
)
def test_words(text: str, expected: str) -> None:
    result = words(text)
    assert result == expected.split()
    assert words(" ".join(result)) == result
    for form in ("NFC", "NFD"):
        assert words(unicodedata.normalize(form, text)) == result


def test_vietnamese_and_korean_read_the_same_in_any_form() -> None:
    for text in ("Tiếng Việt có nhiều dấu thanh", "한국어 낱말은 조사가 붙는다"):
        composed, apart = (unicodedata.normalize(form, text) for form in ("NFC", "NFD"))
        assert composed != apart
        assert words(composed) == words(apart) == words(text)
        assert shingles_of(composed, 3) == shingles_of(apart, 3)


def test_marks_stay_with_their_letter_and_alone_letters_are_clusters() -> None:
    text = "ไทยน้ำใจดีๆ ភាសា が̥ ພາສາລາວ"
    clusters = [cluster for cluster in regex.findall(r"\X", text) if cluster.strip()]
    assert len(clusters) >= 18
    assert words(text) == clusters


def test_ascii_takes_a_shorter_way_to_the_same_words() -> None:
    text = "".join(map(chr, range(128))) * 2 + " The_Mill's 3rd wheel, e-mail"
    assert words(text) == words(text + "…") == FORMER.findall(text.lower())


@pytest.mark.parametrize(
    "letters",
    [
        "aAbBzZ09_ -.,\n\tÀéßẞσıȺñçœØŁžſ’“½²½ǅ",  # Latin, composed
        "абвгдеёжзЁЙїґ ,.«»—",
        "汉字磨坊港口在一月三日结冰了，。、《》（）Mill 2台〇々",
    ],
)
def test_latin_cyrillic_and_han_give_what_they_gave(letters: str) -> None:
    """So signatures of such text, which indexes keep, last."""
    rng = random.Random(1)
    for _ in range(300):
        text = "".join(rng.choices(letters, k=rng.randint(0, 200)))
        assert words(text) == FORMER.findall(text.lower())


def test_each_character_by_its_properties() -> None:
    """Against unicodedata, which shares no code with the table; it may know fewer characters."""
    kind, category = kinds(), {code: unicodedata.category(chr(code)) for code in EVERY}
    assert {int(value) for value in kind} == {SEPARATOR, LETTER, ALONE, MARK, IGNORED}
    for code in EVERY:
        if category[code] != "Cn" and kind[code] != IGNORED and not 0x20000 <= code < 0x40000:
            is_of_word = category[code][0] in "LNM" or code == 0x5F
            is_sign = 0x2E80 <= code < 0x2FE0 or 0x3021 <= code < 0x303C or code in (0x16FE2,)
            assert (kind[code] != SEPARATOR) == is_of_word or is_sign, hex(code)
            assert kind[code] == MARK or category[code][0] != "M", hex(code)
    for first, last in ((0x4E00, 0x9FFF), (0x3041, 0x3096), (0xAC00, 0xD7A3), (0xE01, 0xE30), (0x20000, 0x3FFFF)):
        assert set(kind[first : last + 1].tolist()) <= {ALONE, MARK, LETTER}
        assert kind[first] == ALONE


def test_no_settled_character_is_changed_by_nfc() -> None:
    def is_joined(*pair: str) -> bool:
        return len(unicodedata.normalize("NFC", "".join(chr(int(code, 16)) for code in pair))) == 1

    settled = [chr(code) for code in EVERY if not unsettled()[code]]
    text = "".join(settled)
    assert len(settled) > 1_000_000
    assert unicodedata.normalize("NFC", text) == text
    pairs = [unicodedata.decomposition(chr(code)).split() for code in EVERY]
    seconds = {chr(int(pair[1], 16)) for pair in pairs if len(pair) == 2 and pair[0][0] != "<" and is_joined(*pair)}
    joins = [*map(ord, seconds), *range(0x1161, 0x1176), *range(0x11A8, 0x11C3)]
    assert len(joins) > 60
    assert unsettled()[joins].all()
    assert unsettled()[[code for code in EVERY if unicodedata.combining(chr(code))]].all()


def test_small_letters_are_below_the_end_that_the_tables_have() -> None:
    assert all(chr(code).lower() == chr(code) for code in range(0x20000, sys.maxunicode + 1))
    assert [code for code in EVERY if len(chr(code).lower()) > 1] == [0x130]


def test_scripts_of_a_text() -> None:
    assert (
        count_letters("漢字、かな、カー。", "Han"),
        count_letters("漢字、かな、カー。", "Hiragana", "Katakana"),
    ) == (
        2,
        4,
    )
    assert count_letters("한글 a", "Hangul") == 2
    assert is_unspaced("これは日本語")
    assert is_unspaced("ภาษาไทย")
    assert not is_unspaced("한국어는 띄어 쓴다")
    assert not is_unspaced("plain words")
    assert not is_unspaced("")


def test_ngrams() -> None:
    assert list(ngrams(["a", "b", "c"], 2)) == [("a", "b"), ("b", "c")]
    assert list(ngrams(["a"], 2)) == []
    assert list(ngrams([], 1)) == []


def test_shingles() -> None:
    assert shingles_of("One two, THREE four five six!", 5) == [b"one two three four five", b"two three four five six"]
    expected = ["größe über alles ça va", "über alles ça va là"]
    assert shingles_of("Größe über alles: ça va, là", 5) == [shingle.encode() for shingle in expected]
    assert shingles_of("only three words", 5) == [b"only three words"]
    assert shingles_of("five words make one shingle", 5) == [b"five words make one shingle"]
    assert shingles_of("…!", 5) == []


def test_shingles_are_the_ngrams_of_the_words() -> None:
    rng = np.random.default_rng(4)
    text = " ".join(map(str, rng.integers(0, 50, 300))) + " किताब 汉字"
    assert shingles_of(text, 3) == [" ".join(gram).encode() for gram in ngrams(words(text), 3)]
