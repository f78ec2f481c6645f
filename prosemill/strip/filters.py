"""Which texts are worth learning from: long enough, in the wanted language, no repetition, mostly letters."""

from __future__ import annotations

import functools
import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from lingua import Language, LanguageDetector, LanguageDetectorBuilder

from prosemill.config.settings import Strip
from prosemill.errors import RecipeError

# Told apart in every corpus, wanted or not: the languages most of the web is written in. A text in any other is taken
# for its nearest relative here, which is not the wanted one either.
_COMMON = (
    *("en", "de", "fr", "es", "it", "pt", "nl", "pl", "ru", "tr", "ar", "sv"),
    *("da", "nb", "fi", "cs", "hu", "ro", "uk", "el", "he", "fa", "hi", "vi", "id", "ca"),
)
_MIN_LETTERS = 50  # a shorter text (a code listing, a caption) gives no certain answer and is not judged
_SAMPLE_CHARS = 1_500  # beginning, middle and end; more does not change the answer
_SURE_ENOUGH = (
    0.25  # a wanted language needs this confidence: relatives share it (Danish and Norwegian, Czech and Slovak)
)
# Of a text longer than this, evenly spaced parts are judged: time and memory stay bounded, shares stay what they are.
_JUDGED_CHARS, _JUDGED_PARTS = 1_000_000, 8
_MIN_LINES = 8  # below this, two equal lines are half of the document
_RUN_WORDS = 8  # a repeated run this long is no idiom (Gopher's rules look at 5 to 10)

_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
_KANA = "\u3041-\u30ff\u31f0-\u31ff\uff66-\uff9d"
_HANGUL = "\u1100-\u11ff\u3130-\u318f\uac00-\ud7a3"
_THAI = "\u0e00-\u0eff\u1780-\u17ff\u1000-\u109f"  # Thai, Lao, Khmer, Burmese: no spaces between words either
_ASCII_WORD = re.compile(r"[A-Za-z0-9_]+(?:['-][A-Za-z0-9_]+)*")  # what the next one finds in ASCII, in half the time
_LETTERS = rf"[^\W{_HAN}{_KANA}{_HANGUL}{_THAI}]+"
_WORD = re.compile(rf"[{_HAN}{_KANA}{_HANGUL}{_THAI}]|{_LETTERS}(?:['’-]{_LETTERS})*")
_ASCII_LETTERS_AND_SPACES = bytes(code for code in range(128) if chr(code).isalpha() or chr(code).isspace())


@dataclass(frozen=True)
class Verdict:
    """`reason` is "" for a text to keep; `language` is ISO 639-1, "" when too short to tell."""

    reason: str
    detail: str
    language: str


def judge(text: str, settings: Strip, language: str) -> Verdict:
    """Whether to keep `text`; the first reason against it counts. `language` is the recipe's."""
    part = _parts_of(text)
    words = words_of(part)
    if len(words) < settings.min_words:
        return Verdict("thin", f"{len(words)} words", "")
    if (share := symbol_share(part)) > settings.max_symbol_share:
        return Verdict("symbols", f"{share:.2f} of the characters are neither letter nor space", "")
    if (share := repeated_share(part, words)) > settings.max_repetition:
        return Verdict("repetition", f"{share:.2f} of the text repeats other parts of it", "")
    wanted = settings.languages or [language]
    found, is_wanted = detect_language(text, () if "*" in wanted else tuple(sorted(set(wanted))))
    if not is_wanted:
        return Verdict("language", found, found)
    return Verdict("", "", found)


def _parts_of(text: str) -> str:
    """`text`, or where it is very long, parts of it."""
    if len(text) <= _JUDGED_CHARS:
        return text
    size, apart = _JUDGED_CHARS // _JUDGED_PARTS, len(text) // _JUDGED_PARTS
    return "\n".join(text[part * apart : part * apart + size] for part in range(_JUDGED_PARTS))


def words_of(text: str) -> list[str]:
    """Words, case folded; each character of a script that puts no spaces between words (Chinese, Thai …) is one."""
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    return [word.casefold() for word in _WORD.findall(text)]


def symbol_share(text: str) -> float:
    """The share of characters that are neither letter (nor part of one) nor white space."""
    rare = text.encode("utf-8", "surrogatepass").translate(None, _ASCII_LETTERS_AND_SPACES)
    counts = Counter(rare.decode("utf-8", "surrogatepass"))  # six times as fast as to count all
    symbols = sum(n for char, n in counts.items() if not (char.isspace() or unicodedata.category(char)[0] in "LM"))
    return symbols / max(1, len(text))


def repeated_share(text: str, words: Sequence[str]) -> float:
    """How much of `text`, and of its `words`, repeats other parts of it: the larger of the shares of lines and runs."""
    lines = [line.strip().casefold() for line in text.split("\n") if line.strip()]
    by_lines = 1 - len(set(lines)) / len(lines) if len(lines) >= _MIN_LINES else 0.0
    num_runs = len(words) - _RUN_WORDS + 1
    runs = zip(*(itertools.islice(words, start, None) for start in range(_RUN_WORDS)), strict=False)
    by_runs = 1 - len(set(runs)) / num_runs if num_runs >= 2 * _RUN_WORDS else 0.0
    return max(by_lines, by_runs)


def detect_language(text: str, wanted: Sequence[str] = ()) -> tuple[str, bool]:
    """The language of `text` (ISO 639-1, "" when it is too short to tell) and whether it may be one of `wanted`.

    No `wanted`: every language is. Chinese, Japanese and Korean are told by their scripts.
    """
    sample = _sample(text)
    num_letters = sum(map(str.isalpha, sample))
    found = _by_script(sample, num_letters)
    if found:
        return found, not wanted or found in wanted
    if num_letters < _MIN_LETTERS:
        return "", True
    values = _detector(frozenset({*_COMMON, *wanted} - {"zh", "ja", "ko"})).compute_language_confidence_values(sample)
    confidence = {value.language.iso_code_639_1.name.lower(): value.value for value in values}
    found = max(confidence, key=lambda code: (confidence[code], code))
    best_wanted = max(wanted, key=lambda code: (confidence.get(code, 0.0), code), default="")
    if best_wanted and found not in wanted and confidence.get(best_wanted, 0.0) >= _SURE_ENOUGH:
        found = best_wanted
    return found, not wanted or found in wanted


def check_languages(codes: Sequence[str]) -> None:
    """Raise RecipeError for a code that no text could ever be found to be in."""
    unknown = sorted(set(codes) - set(_by_code()) - {"*"})
    if unknown:
        raise RecipeError(
            f"strip.languages: {unknown[0]!r} is no ISO 639-1 code that can be detected; '*' keeps any language"
        )


def _sample(text: str) -> str:
    if len(text) <= _SAMPLE_CHARS:
        return text
    third, middle = _SAMPLE_CHARS // 3, len(text) // 2
    return f"{text[:third]}\n{text[middle - third // 2 : middle + third // 2]}\n{text[-third:]}"


def _by_script(sample: str, num_letters: int) -> str:
    """zh, ja or ko where their characters dominate: one says as much as a Latin word half as long again, so count 3."""
    han, kana, hangul = (len(re.findall(f"[{script}]", sample)) for script in (_HAN, _KANA, _HANGUL))
    east = han + kana + hangul
    if east < 5 or 3 * east < num_letters - east:
        return ""
    if hangul * 2 > east:
        return "ko"
    return "ja" if kana * 10 > east else "zh"  # Japanese is a third to a half kana; Chinese quotes a word of it at most


@functools.cache
def _by_code() -> dict[str, Language]:
    return {language.iso_code_639_1.name.lower(): language for language in Language.all()}


@functools.lru_cache(maxsize=4)
def _detector(codes: frozenset[str]) -> LanguageDetector:
    """Loads its models at the first text, once a process.

    Trigrams only: 0.1 s and 2 MB a language, where all n-grams take 1.5 s and 280 MB for
    twelve; they only tell more about texts that are too short to be judged here.
    """
    languages = [_by_code()[code] for code in sorted(codes)]
    return LanguageDetectorBuilder.from_languages(*languages).with_low_accuracy_mode().build()
