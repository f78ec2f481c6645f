"""Filter language: the text is in a language that the recipe wants."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from lingua import Language, LanguageDetector, LanguageDetectorBuilder

from prosemill.errors import RecipeError
from prosemill.strip.filters import Filter, Judged
from prosemill.text.scripts import count_letters

# Candidates in every corpus, wanted or not: the languages most of the web is written in. A text in any other is taken
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


class LanguageFilter(Filter):
    name = "language"
    position = 40

    def problem(self, text: Judged) -> str:
        wanted = text.settings.languages or [text.language]
        text.found_language, is_wanted = detect_language(text.whole, () if "*" in wanted else sorted(set(wanted)))
        return "" if is_wanted else text.found_language


def detect_language(text: str, wanted: Sequence[str] = ()) -> tuple[str, bool]:
    """The language of `text` (ISO 639-1, "" when it is too short to tell) and whether it may be one of `wanted`.

    No `wanted`: every language is. Chinese, Japanese and Korean are recognised by their scripts.
    """
    sample = _sample(text)
    num_letters = sum(map(str.isalpha, sample))
    language = _by_script(sample, num_letters)
    if language:
        return language, not wanted or language in wanted
    if num_letters < _MIN_LETTERS:
        return "", True
    values = _detector(frozenset({*_COMMON, *wanted} - {"zh", "ja", "ko"})).compute_language_confidence_values(sample)
    confidence = {value.language.iso_code_639_1.name.lower(): value.value for value in values}
    language = max(confidence, key=lambda code: (confidence[code], code))
    best_wanted = max(wanted, key=lambda code: (confidence.get(code, 0.0), code), default="")
    if best_wanted and language not in wanted and confidence.get(best_wanted, 0.0) >= _SURE_ENOUGH:
        language = best_wanted
    return language, not wanted or language in wanted


def check_languages(codes: Sequence[str]) -> None:
    """Raise RecipeError for a code that no text could ever be found to be in."""
    unknown = sorted(set(codes) - set(_by_code()) - {"*"})
    if unknown:
        raise RecipeError(
            f"strip.languages: {unknown[0]!r} is not an ISO 639-1 code that can be detected; '*' keeps any language"
        )


def _sample(text: str) -> str:
    if len(text) <= _SAMPLE_CHARS:
        return text
    third, middle = _SAMPLE_CHARS // 3, len(text) // 2
    return f"{text[:third]}\n{text[middle - third // 2 : middle + third // 2]}\n{text[-third:]}"


def _by_script(sample: str, num_letters: int) -> str:
    """zh, ja or ko where their characters dominate: one says as much as a Latin word half as long again, so count 3."""
    han, hangul = (count_letters(sample, script) for script in ("Han", "Hangul"))
    kana = count_letters(sample, "Hiragana", "Katakana")
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
