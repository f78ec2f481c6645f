"""prosemill as a library: names that come when they are asked for, their examples, and the scripts in examples/."""

from __future__ import annotations

import doctest
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas
import pyarrow as pa
import pytest

import prosemill
from prosemill import decide, remove_duplicates, score, strip_html
from prosemill.config.settings import Gate, Strip
from prosemill.errors import BaseModelError, RecipeError
from prosemill.gate import stage as gate
from tests.test_layout import ROOT
from tests.tiny import make_base, sentences

ANY = Strip(min_words=0, max_repetition=1, max_symbol_share=1, languages=["*"])
NAMES = {
    *("strip_html", "remove_duplicates", "chunk_file", "score", "decide"),
    *("Recipe", "load_recipe", "Store", "__version__"),
}
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def run(arguments: list[str], folder: Path) -> str:
    """What a program prints, with prosemill from this checkout."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_names_are_there() -> None:
    assert set(prosemill.__all__) == NAMES <= set(dir(prosemill))
    assert all(getattr(prosemill, name) is not None for name in NAMES)
    assert prosemill.__version__ == "0.1.0"
    with pytest.raises(AttributeError, match="no attribute 'strip_htlm'"):
        prosemill.strip_htlm  # type: ignore[attr-defined]  # noqa: B018


def test_a_name_is_imported_when_it_is_asked_for(tmp_path: Path) -> None:
    program = (
        "import sys, prosemill\n"
        "print(sorted(name for name in sys.modules if name.startswith('prosemill')))\n"
        "prosemill.strip_html(b'<p>The mill.</p>')\n"
        "prosemill.remove_duplicates(['The mill.', 'The mill.'])\n"
        "prosemill.chunk_file, prosemill.decide, prosemill.load_recipe, prosemill.Recipe, prosemill.Store\n"
        "print(sorted({'torch', 'transformers', 'mlflow', 'prefect', 'pandas', 'datasets'} & set(sys.modules)))\n"
    )
    assert run(["-c", program], tmp_path).splitlines() == ["['prosemill']", "[]"]


def test_type_checkers_see_the_types(tmp_path: Path) -> None:
    assert (ROOT / "prosemill" / "py.typed").is_file()  # the wheel takes the package's folder as it is
    program = tmp_path / "program.py"
    program.write_text(
        "import prosemill\nreveal_type(prosemill.strip_html)\nreveal_type(prosemill.remove_duplicates(['a']).keepers)\n"
        "reveal_type(prosemill.__version__)\nprosemill.score(1, [])\n"
    )
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), str(program)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    revealed = [line.partition("note: Revealed type is ")[2] for line in done.stdout.splitlines()]
    assert revealed[0].startswith('"def (html: bytes | str, url: str | None')
    assert revealed[0].endswith('-> prosemill.strip.document.StrippedPage"')
    assert revealed[1:3] == ['"list[str]"', '"str"']
    assert 'Argument 1 to "score" has incompatible type "int"' in done.stdout


@pytest.mark.parametrize("name", ["strip_html", "remove_duplicates", "chunk_file", "decide", "score"])
def test_the_examples_in_docstrings_run(name: str) -> None:
    (example,) = doctest.DocTestFinder(recurse=False).find(getattr(prosemill, name), name, globs={})
    assert example.examples
    assert doctest.DocTestRunner().run(example).failed == 0


# --- the functions ---------------------------------------------------------------------------------------------------


def test_text_is_taken_as_decoded() -> None:
    page = '<meta charset="shift_jis"><article><p>Der Müller mahlt für das ganze Dorf.</p></article>'
    assert strip_html(page, settings=ANY).text == "Der Müller mahlt für das ganze Dorf."
    assert strip_html(page, settings=ANY).text == strip_html(page.encode(), settings=ANY).text
    halves = "The mill at the bottom of the sea \ud83d\ude00 grinds salt \ud83d\r\nto this day."
    whole = "The mill at the bottom of the sea 😀 grinds salt \ufffd\nto this day."
    assert strip_html(halves, content_type="text/plain", settings=ANY).text == whole
    assert strip_html("\x00\x01\x02\x03" * 9).reason == "bad_text"
    with pytest.raises(TypeError, match="not PosixPath; read a file with"):
        strip_html(Path("page.html"))  # type: ignore[arg-type]


TEXTS = [*sentences(8), sentences(8)[0].upper(), *sentences(2)]


def kinds() -> dict[str, Any]:
    columns = {"body": TEXTS, "id": [f"r{number}" for number in range(len(TEXTS))], "year": list(range(len(TEXTS)))}
    return {
        "pyarrow": pa.table(columns),
        "pandas": pandas.DataFrame(columns, index=range(100, 100 + len(TEXTS))),
        "datasets": datasets.Dataset.from_dict(columns),
    }


@pytest.mark.parametrize("kind", ["pyarrow", "pandas", "datasets"])
def test_a_table_gives_a_table_of_its_kind(kind: str) -> None:
    table = kinds()[kind]
    result = remove_duplicates(table, text_column="body")
    assert type(result.keepers) is type(table)
    assert list(result.keepers["year"].to_pylist() if kind == "pyarrow" else result.keepers["year"]) == [*range(8)]
    assert result.rows.tolist() == [*range(8)]
    assert result.removed["id"].to_pylist() == ["r8", "r9", "r10"]
    assert result.removed["keeper"].to_pylist() == ["r0", "r0", "r1"]


def test_a_list_gives_a_list() -> None:
    result = remove_duplicates(TEXTS)
    assert result.keepers == TEXTS[:8]
    assert remove_duplicates(tuple(TEXTS)).keepers == tuple(TEXTS[:8])


def test_a_threshold_decides_what_a_copy_is() -> None:
    words = sentences(12)
    one, other = " ".join(words), " ".join([*words[:-2], "But nobody knows what became of them afterwards."])
    assert len(remove_duplicates([one, other], threshold=0.95).keepers) == 2
    assert len(remove_duplicates([one, other], threshold=0.6).keepers) == 1
    with pytest.raises(ValueError, match="threshold"):
        remove_duplicates([one, other], threshold=1.5)


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ({"text": 1}, TypeError, "dict: is not a list of texts"),
        ("text", TypeError, "str: is not a list of texts"),
        ([b"text"], TypeError, "holds bytes"),
        (pa.table({"body": ["a"]}), RecipeError, "no column text among the columns body"),
    ],
)
def test_what_is_no_text_is_refused(data: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        remove_duplicates(data)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base")).folder


def test_scores_are_the_models_own(base: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    texts = sentences(3)
    scores = score(base, texts)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    for text, nats, num_tokens, size in zip(texts, scores.nats, scores.num_tokens, scores.size_bytes, strict=True):
        ids = torch.tensor([[tokenizer.eos_token_id, *tokenizer.encode(text, add_special_tokens=False)]])
        with torch.no_grad():
            loss = float(model(ids, labels=ids).loss)
        assert nats / num_tokens == pytest.approx(loss, rel=1e-5)
        assert (num_tokens, size) == (ids.shape[1] - 1, len(text.encode()))
    assert scores.perplexity == pytest.approx(np.exp(scores.nats.sum() / scores.num_tokens.sum()))
    assert scores.bits_per_byte == pytest.approx(scores.nats.sum() / np.log(2) / scores.size_bytes.sum())


def test_what_cannot_be_scored_is_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="a list of texts"):
        score(base, "one text")
    with pytest.raises(ValueError, match="leave empty ones out"):
        score(base, ["The mill", ""])
    with pytest.raises(ValueError, match="context_tokens = 1"):
        score(base, ["The mill"], context_tokens=1)
    with pytest.raises(BaseModelError):
        score(tmp_path, ["The mill"])


def rows(label: str, nats: np.ndarray[Any, Any], sizes: np.ndarray[Any, Any]) -> list[dict[str, Any]]:
    return [
        {
            "model_id": label,
            "document": str(number),
            "part": "test",
            "first_seen": "",
            "nats": nats_of_text,
            "size_bytes": size,
        }
        for number, (nats_of_text, size) in enumerate(zip(nats.tolist(), sizes.tolist(), strict=True))
    ]


@pytest.mark.parametrize(("gain", "use"), [(30.0, 1), (0.0, 1), (-30.0, 1), (3.0, 1), (3.0, 30)])
def test_the_decision_is_that_of_the_gate(gain: float, use: int) -> None:
    random = np.random.default_rng(3)
    sizes = random.integers(500, 2000, 40)
    champion = sizes * 0.9 + random.normal(0, 20, 40)
    challenger = champion - gain + random.normal(0, 6, 40)
    decision = decide(challenger, champion, sizes, use=use)
    scores = {"challenger": rows("a", challenger, sizes), "champion": rows("b", champion, sizes)}
    expected = gate.decide(scores, Gate(), use=use)
    assert (decision.decision, decision.reason) == (expected["decision"], expected["reason"])
    assert [decision.difference, list(decision.interval)] == [
        expected["difference_bits_per_byte"],
        expected["interval"],
    ]


def test_scores_of_different_documents_are_refused() -> None:
    with pytest.raises(ValueError, match="give a number a document"):
        decide([1.0, 2.0], [1.0], [10, 10])
    with pytest.raises(ValueError, match="finite"):
        decide([1.0, float("nan")], [1.0, 2.0], [10, 10])
    with pytest.raises(ValueError, match="use = 0"):
        decide([1.0], [1.0], [10], use=0)


# --- examples/ -------------------------------------------------------------------------------------------------------


def test_strip_file(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<html><title>Salt</title><nav>Home</nav><p>The mill ground salt.</p>")
    printed = run([str(ROOT / "examples" / "strip_file.py"), "page.html"], tmp_path)
    assert printed == "page.html: Salt (no language; thin)\nThe mill ground salt.\n"


def test_dedup_table(tmp_path: Path) -> None:
    pandas.DataFrame({"body": TEXTS, "year": range(len(TEXTS))}).to_csv(tmp_path / "in.csv", index=False)
    printed = run([str(ROOT / "examples" / "dedup_table.py"), "in.csv", "out.csv", "body"], tmp_path)
    assert printed.splitlines()[:2] == ["8 of 11 rows kept", "row 8 is 100% of row 0 (exact)"]
    assert pandas.read_csv(tmp_path / "out.csv")["year"].tolist() == [*range(8)]


def test_score_model(base: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("\n\n".join(sentences(6)))
    printed = run([str(ROOT / "examples" / "score_model.py"), str(base), str(base), "text.txt"], tmp_path).splitlines()
    assert len({line.split(": ")[1] for line in printed[:2]}) == 1
    assert printed[2].startswith("reject: The challenger needs 0.0000 bits per byte more than the champion")


def test_recipe_in_python(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    one, other = ("\n\n".join(sentences(12, seed)) for seed in (0, 1))
    for number, text in enumerate((one, other, one.upper())):
        (tmp_path / "texts" / f"{number}.txt").write_text(text)
    printed = run([str(ROOT / "examples" / "recipe_in_python.py"), "texts", "store"], tmp_path).splitlines()
    assert [line.partition("-")[0] for line in printed] == ["scrape", "strip", "dedup"]
    assert printed[2].endswith(": 2 of 3 kept, dropped {'exact': 1}")
    snapshot = printed[2].partition(":")[0]
    assert prosemill.Store(str(tmp_path / "store")).manifest(snapshot).stage == "dedup"


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_every_example_is_named_and_tested(readme: str) -> None:
    text = (ROOT / readme).read_text(encoding="utf-8")
    assert [path.stem for path in EXAMPLES] == ["dedup_table", "recipe_in_python", "score_model", "strip_file"]
    assert all(f"(examples/{path.name})" in text for path in EXAMPLES)
    assert all(f"test_{path.stem}" in globals() for path in EXAMPLES)
