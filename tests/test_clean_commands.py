"""Each stage alone: `prosemill strip`, `dedup` and `chunk`, files in, files out."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.fixtures import made_pages, planted_copies
from flows.cli import run
from prosemill.dedup import dedup_file, remove_duplicates
from prosemill.dedup.files import _move_into_place
from prosemill.errors import EXIT_PARTIAL, EXIT_REFUSED, RecipeError
from prosemill.models.bases import load_tokenizer, tokenizer_folder


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    texts = planted_copies(120).texts
    table = pa.table({"id": [f"r{number}" for number in range(len(texts))], "text": texts, "year": range(len(texts))})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=50)
    return tmp_path / "in.parquet"


def test_dedup_of_a_file_is_that_of_the_table(rows: Path) -> None:
    target = rows.with_name("out.parquet")
    assert run(["dedup", str(rows), str(target)]) == 0
    expected = remove_duplicates(pq.read_table(rows))
    assert expected.removed.num_rows > 50
    assert pq.read_table(target) == expected.keepers
    removed = pq.read_table(rows.with_name("removed.parquet"))
    assert removed.column_names == ["id", "keeper", "similarity", "reason"]
    assert removed == expected.removed.select(removed.column_names)
    assert {path.name for path in rows.parent.iterdir()} == {"in.parquet", "out.parquet", "removed.parquet"}


def test_the_engine_of_dedup_changes_nothing(rows: Path) -> None:
    target = rows.with_name("out.parquet")
    assert run(["dedup", str(rows), str(target), "--engine", "datasketch"]) == 0
    expected = remove_duplicates(pq.read_table(rows), engine="numba")
    assert pq.read_table(target) == expected.keepers
    assert run(["dedup", str(rows), str(target), "--overwrite", "--engine", "rensa"]) == 2, "no such engine"


def test_a_file_without_ids_names_its_rows(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pq.write_table(pq.read_table(rows, columns=["text"]), rows)
    assert run(["dedup", str(rows), str(rows.with_name("out.parquet")), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["seen"] == report["kept"] + sum(report["dropped"].values())
    removed = pq.read_table(report["removed"]).to_pylist()
    assert all(int(row["keeper"]) < int(row["id"]) for row in removed), "the first of each stays"


def test_a_higher_threshold_keeps_more(rows: Path) -> None:
    kept = {}
    for threshold in ("0.6", "0.95"):
        assert (
            run(["dedup", str(rows), str(rows.with_name("out.parquet")), "--threshold", threshold, "--overwrite"]) == 0
        )
        kept[threshold] = pq.read_metadata(rows.with_name("out.parquet")).num_rows
    assert kept["0.6"] < kept["0.95"]


def test_what_cannot_be_deduplicated_is_one_line(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(rows.with_name("out.parquet"))
    no_parquet = rows.with_name("a.txt")
    no_parquet.write_text("words")
    no_text = rows.with_name("b.parquet")
    pq.write_table(pa.table({"body": ["words"]}), no_text)
    for path, why in ((no_parquet, "cannot be read as Parquet"), (no_text, "no column text among the columns body")):
        assert run(["dedup", str(path), out]) == EXIT_REFUSED
        (line,) = capsys.readouterr().err.splitlines()
        assert why in line
    assert run(["dedup", str(rows.with_name("none.parquet")), out]) == EXIT_REFUSED
    assert "no such file" in capsys.readouterr().err
    with pytest.raises(RecipeError, match="is the file that is read"):
        dedup_file(rows, rows)
    assert not Path(out).exists()


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("source", "target", "why", "even_with_overwrite"),
    [
        ("removed.parquet", "kept.parquet", "removed.parquet: is the file that is read", True),
        ("in.parquet", "in.parquet", "in.parquet: is the file that is read", True),
        ("in.parquet", "out/../in.parquet", "in.parquet: is the file that is read", True),
        ("in.parquet", "link.parquet", "link.parquet: is the file that is read", True),
        ("in.parquet", "hard.parquet", "hard.parquet: is the file that is read", True),
        ("link.parquet", "in.parquet", "in.parquet: is the file that is read", True),
        ("in.parquet", "new/removed.parquet", "is where the removed rows are listed", True),
        ("in.parquet", "new/Removed.Parquet", "is where the removed rows are listed", True),
        ("in.parquet", "out", "out: is a folder", True),
        ("in.parquet", "out/..", "is a folder", True),
        ("in.parquet", "/", "/: is a folder", True),
        ("in.parquet", "other.txt/out.parquet", "cannot be written", True),
        ("in.parquet", "other.txt", "other.txt: exists already", False),
        ("in.parquet", "dangling.parquet", "dangling.parquet: exists already", False),
        ("in.parquet", "out/kept.parquet", "out/removed.parquet: exists already", False),
    ],
)
def test_dedup_overwrites_nothing_unasked(
    rows: Path,
    capsys: pytest.CaptureFixture[str],
    source: str,
    target: str,
    why: str,
    even_with_overwrite: bool,
) -> None:
    home = rows.parent
    (home / "out").mkdir()
    (home / "removed.parquet").write_bytes(rows.read_bytes())
    (home / "out" / "removed.parquet").write_bytes(b"of last week")
    (home / "other.txt").write_bytes(b"mine")
    (home / "link.parquet").symlink_to(rows)
    (home / "hard.parquet").hardlink_to(rows)
    (home / "dangling.parquet").symlink_to(home / "nowhere")
    if source != "removed.parquet" and not target.startswith(("out/kept", "new")):
        (home / "removed.parquet").unlink()
    before = bytes_of(home)
    assert run(["dedup", str(home / source), str(home / target)]) == EXIT_REFUSED
    (line,) = capsys.readouterr().err.splitlines()
    assert why in line
    assert bytes_of(home) == before

    status = run(["dedup", str(home / source), str(home / target), "--overwrite"])
    capsys.readouterr()
    assert status == (EXIT_REFUSED if even_with_overwrite else 0)
    if even_with_overwrite:
        assert bytes_of(home) == before
    else:
        assert (home / source).read_bytes() == before[source]
        assert pq.read_metadata(home / target).num_rows < pq.read_metadata(rows).num_rows


def test_what_came_meanwhile_is_not_overwritten_either(tmp_path: Path) -> None:
    """Both files or neither: the first is taken back when the second turns out to be there."""
    aside = {tmp_path / name: tmp_path / f"{name}.parquet" for name in ("first", "second")}
    for path in aside:
        path.write_text("new")
    (tmp_path / "second.parquet").write_text("old")
    with pytest.raises(RecipeError, match=r"second\.parquet: exists already"):
        _move_into_place(aside, overwrite=False)
    assert not (tmp_path / "first.parquet").exists()
    assert (tmp_path / "second.parquet").read_text() == "old"
    _move_into_place(aside, overwrite=True)
    assert [path.read_text() for path in aside.values()] == ["new", "new"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "first.parquet", "second.parquet"]


def test_what_is_overwritten_comes_back_if_the_second_file_cannot_be_placed(tmp_path: Path) -> None:
    aside = {tmp_path / name: tmp_path / f"{name}.parquet" for name in ("first", "second")}
    for path in aside:
        path.write_text("new")
    (tmp_path / "first.parquet").write_text("old")
    (tmp_path / "second.parquet").mkdir()  # came meanwhile
    with pytest.raises(OSError, match=r"second\.parquet"):
        _move_into_place(aside, overwrite=True)
    assert (tmp_path / "first.parquet").read_text() == "old"
    assert not list(tmp_path.glob(".*"))


def test_chunk_replaces_not_even_a_link_that_leads_nowhere(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    link = rows.with_name("chunks")
    link.symlink_to(rows.with_name("nowhere"))
    assert run(["chunk", str(rows), str(link), "--tokenizer", "demo"]) == EXIT_REFUSED
    assert "chunks: exists already" in capsys.readouterr().err
    assert link.is_symlink()


def test_chunk_loses_no_token_and_says_which_text_is_where(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = rows.with_name("chunks")
    assert run(["chunk", str(rows), str(out), "--tokenizer", "demo", "--chunk-tokens", "256", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    table = pq.read_table(rows)
    with pa.memory_map(str(out / "chunks.arrow")) as source, pa.ipc.open_stream(source) as stream:
        ids = stream.read_all()["input_ids"].to_pylist()
    assert {len(chunk) for chunk in ids} == {256}
    assert len(ids) == report["chunks"]
    where = pq.read_table(out / "map.parquet").to_pylist()
    tokenizer = load_tokenizer(tokenizer_folder("demo"))
    for id, text in zip(table["id"].to_pylist(), table["text"].to_pylist(), strict=True):
        pieces = sorted((row for row in where if row["document"] == id), key=lambda row: row["document_start"])
        places = ((int(row["chunk"].rpartition("#")[2]), row["chunk_start"], row["num_tokens"]) for row in pieces)
        tokens = [token for chunk, start, number in places for token in ids[chunk][start : start + number]]
        assert tokens == [*tokenizer.encode(text, add_special_tokens=False).ids, report["end_of_text"]]
    assert report["tokens"] == sum(row["num_tokens"] for row in where)
    assert json.loads((out / "info.json").read_text())["dtype"] == "uint16"


def test_what_cannot_be_chunked_is_one_line(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty, out = rows.with_name("empty.parquet"), rows.with_name("chunks")
    pq.write_table(pa.table({"text": ["", None]}), empty)
    (rows.parent / "there").mkdir()
    for source, target, tokenizer, why in (
        (rows, rows.parent / "there", "demo", "exists already"),
        (empty, out, "demo", "no row has any text"),
        (rows, out, str(rows.parent / "there"), "no tokenizer.json"),
    ):
        assert run(["chunk", str(source), str(target), "--tokenizer", tokenizer]) == EXIT_REFUSED
        (line,) = capsys.readouterr().err.splitlines()
        assert why in line
    assert {path.name for path in rows.parent.iterdir()} == {"in.parquet", "empty.parquet", "there"}


def test_strip_prints_the_main_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = made_pages(1)[0]
    (tmp_path / "page.html").write_bytes(page.body)
    assert run(["strip", str(tmp_path / "page.html")]) == 0
    text = capsys.readouterr().out
    assert all(segment in " ".join(text.split()) for segment in page.wanted)
    assert not any(segment in text for segment in page.unwanted)


def test_strip_scrubs_and_filters_nothing_unless_a_recipe_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = "<!doctype html><html><body><article><p>Write to miller@example.org today.</p></article></body></html>"
    (tmp_path / "short.html").write_text(short)
    assert run(["strip", str(tmp_path / "short.html")]) == 0
    assert "miller@example.org" in capsys.readouterr().out
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('name = "x"\n[[sources]]\nname = "s"\nkind = "folder"\npath = "."\n')
    assert run(["strip", str(tmp_path / "short.html"), "--recipe", str(recipe)]) == EXIT_REFUSED
    assert "dropped, thin" in capsys.readouterr().err


def test_strip_goes_on_after_a_file_that_gives_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = made_pages(1)[0]
    (tmp_path / "page.html").write_bytes(page.body)
    (tmp_path / "picture.html").write_bytes(bytes(range(256)) * 40)
    files = [str(tmp_path / name) for name in ("picture.html", "missing.html", "page.html")]
    assert run(["strip", *files, "--json"]) == EXIT_PARTIAL
    printed = capsys.readouterr()
    bad, good = map(json.loads, printed.out.splitlines())
    assert (bad["reason"], bad["text"]) == ("bad_text", "")
    assert good["reason"] == ""
    assert good["title"]
    assert "missing.html: No such file or directory" in printed.err
