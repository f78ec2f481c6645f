"""Whatever is wrong ends in one clear line and a non-zero exit code, and leaves the store as it was."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.cli import run
from prosemill.config.recipe import load_recipe
from prosemill.errors import EXIT_FAILED, EXIT_REFUSED, EXIT_USAGE, RecipeError
from tests.tiny import make_base, texts

ROOT = Path(__file__).parent.parent
CLOSED_PORT = "http://127.0.0.1:9"  # "discard": nothing listens there

SITE = '[[sources]]\nname = "a"\nurls = ["http://127.0.0.1:9/"]\n'
FOLDER = '[[sources]]\nname = "a"\nkind = "folder"\npath = "texts"\n'
TINY = (
    '[strip]\nlanguages = ["*"]\nmin_words = 3\n'
    "[chunk]\nchunk_tokens = 64\n[evaluate]\nstride = 32\nsample_tokens = 4\n"
)
OWN_SITE = "[scrape]\nallow_private_addresses = true\ndelay_seconds = 0\n"
BASE = '[finetune]\nbase = "base"\nepochs = 1\nprecision = "fp32"\n'
NAME = 'name = "stories"\n'

# (what is wrong, recipe, words that the line must hold): what a recipe itself tells
WRONG_RECIPES = [
    ("no name", SITE, "name is missing"),
    ("no source", NAME, "sources is missing"),
    ("empty file", "", "name is missing"),
    ("not TOML", "name = stories", "is not TOML"),
    ("key twice", NAME + NAME + SITE, "is not TOML"),
    ("misspelt section", NAME + SITE + "[finetun]\n", "did you mean 'finetune'"),
    ("misspelt key", NAME + SITE + "[finetune]\nlearning_rat = 1e-4\n", "did you mean 'learning_rate'"),
    ("unheard-of key", NAME + SITE + "[gate]\nvibes = true\n", "unknown key gate.vibes"),
    ("a word for a number", NAME + SITE + '[finetune]\nepochs = "three"\n', "finetune.epochs = 'three'"),
    ("a number for a word", NAME + SITE + "[finetune]\nbase = 3\n", "finetune.base = 3"),
    ("out of bounds", NAME + SITE + "[dedup]\nthreshold = 80\n", "dedup.threshold = 80"),
    ("negative", NAME + SITE + "[finetune]\nlearning_rate = -1.0\n", "greater than or equal to 0"),
    ("not a number", NAME + SITE + "[scrape]\ndelay_seconds = nan\n", "scrape.delay_seconds = nan"),
    ("infinite", NAME + SITE + "[finetune]\nepochs = inf\n", "finetune.epochs = inf"),
    ("thresholds crossed", NAME + SITE + "[dedup]\nthreshold = 0.5\n", "loose_threshold"),
    ("nothing to train on", NAME + SITE + "[split]\ntest_share = 0.9\nvalidation_share = 0.09\n", "less than a tenth"),
    ("stride beyond the window", NAME + SITE + "[evaluate]\nstride = 4096\n", "evaluate.stride 4096"),
    ("micro-batches do not fit", NAME + SITE + "[finetune]\nbatch_chunks = 5\n", "not a multiple of micro_batch"),
    ("bad name", 'name = "My Stories!"\n' + SITE, "name = 'My Stories!'"),
    ("bad language", NAME + 'language = "klingon"\n' + SITE, "language = 'klingon'"),
    ("two sources of a name", NAME + SITE + SITE, "two sources are named 'a'"),
    ("unknown kind", NAME + SITE + 'kind = "sitemap-index"\n', "sources[0].kind = 'sitemap-index'"),
    ("site without URL", NAME + '[[sources]]\nname = "a"\n', "needs urls"),
    ("folder without path", NAME + '[[sources]]\nname = "a"\nkind = "folder"\n', "needs path"),
    ("bad regular expression", NAME + SITE + 'include = ["(["]\n', "not a regular expression"),
]  # fmt: skip
TOLD_TO_A_PERSON = [case for case in WRONG_RECIPES if case[0] in ("not TOML", "misspelt key", "out of bounds")]
# What is only seen at a run: on a disk, at a site, in the texts.
WRONG_RUNS = [
    ("folder not there", NAME + FOLDER.replace("texts", "nowhere"), "does not exist"),
    ("archive not there", NAME + '[[sources]]\nname = "a"\nkind = "warc"\npath = "x.warc.gz"\n', "does not exist"),
    ("file for a folder", NAME + FOLDER.replace("texts", "recipe.toml"), "needs a folder"),
    ("folder for an archive", NAME + FOLDER.replace('"folder"', '"warc"'), "needs a file"),
    ("base not there", NAME + FOLDER + '[finetune]\nbase = "./no-such-base"\n', "no-such-base"),
    ("base without weights", NAME + FOLDER + '[finetune]\nbase = "half-base"\n', "half-base"),
    ("base that is not a model", NAME + FOLDER + '[finetune]\nbase = "texts"\n', "config.json"),
    ("chunk longer than the context", NAME + FOLDER + BASE + TINY.replace("= 64", "= 128"), "128"),
    ("unreachable site", NAME + SITE + BASE + OWN_SITE + TINY, CLOSED_PORT),
    ("private address", NAME + SITE + BASE + TINY, "allow_private_addresses"),
    ("empty folder", NAME + FOLDER.replace("texts", "empty") + BASE + TINY, "empty"),
    ("no known file in the folder", NAME + FOLDER.replace("texts", "pictures") + BASE + TINY, "pictures"),
    ("every document dropped", NAME + FOLDER + BASE + TINY.replace("min_words = 3", "min_words = 99999"), "thin"),
    ("zero documents after dedup", NAME + FOLDER.replace("texts", "same") + BASE + TINY, "document"),
    ("wrong date", NAME + FOLDER + BASE + TINY, "as_of = 'yesterday'"),
]  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("refusals")
    make_base(home / "base")
    shutil.copytree(home / "base", home / "half-base", ignore=shutil.ignore_patterns("*.safetensors"))
    for folder in ("texts", "empty", "pictures", "same"):
        (home / folder).mkdir()
    for number, text in enumerate(texts(12)):
        (home / "texts" / f"{number}.txt").write_text(text)
        (home / "same" / f"{number}.txt").write_text(texts(6)[5])
    (home / "pictures" / "cat.png").write_bytes(b"\x89PNG")
    return home


@pytest.fixture
def refuse(home: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run `prosemill retrain` on a wrong recipe; the line it ends with, after checking that it is only a line."""

    def refuse(recipe: str, *arguments: str, store: Path | None = None, statuses: tuple[int, ...]) -> str:
        (home / "recipe.toml").write_text(recipe)
        target = store or home / "store"
        before = files(target)
        status = run(["retrain", str(home / "recipe.toml"), "--store", str(target), *arguments])
        printed = capfd.readouterr()
        lines = [line for line in printed.err.splitlines() if line.startswith("prosemill: ")]
        assert status in statuses, printed.err
        assert len(lines) == 1, printed.err
        assert "Traceback" not in printed.err + printed.out
        assert snapshots(files(target)) <= before, "a refused run left a snapshot that only a whole run makes"
        return lines[0]

    return refuse


def files(store: Path) -> set[str]:
    """What a reader of the store can see: snapshots, records, models."""
    seen = ("snapshots", "corpora", "unfinished")
    return {path.relative_to(store).as_posix() for part in seen for path in (store / part).glob("*")}


def snapshots(names: set[str]) -> set[str]:
    """Scrape and strip snapshots are true whatever came after them; decisions, models and records are not."""
    return {name for name in names if name.startswith(("snapshots/finetune", "snapshots/gate", "snapshots/evaluate"))}


def test_there_are_forty_of_them() -> None:
    assert len(WRONG_RECIPES) + len(WRONG_RUNS) >= 38  # and a read-only store, a full disk
    assert len(TOLD_TO_A_PERSON) == 3


@pytest.mark.parametrize(("wrong", "recipe", "message"), WRONG_RECIPES, ids=[case[0] for case in WRONG_RECIPES])
def test_a_wrong_recipe_is_refused_in_one_line(tmp_path: Path, wrong: str, recipe: str, message: str) -> None:
    (tmp_path / "recipe.toml").write_text(recipe)
    with pytest.raises(RecipeError) as refused:
        load_recipe(tmp_path / "recipe.toml")
    assert message in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("wrong", "recipe", "message"),
    [*TOLD_TO_A_PERSON, *WRONG_RUNS],
    ids=[case[0] for case in [*TOLD_TO_A_PERSON, *WRONG_RUNS]],
)
@pytest.mark.usefixtures("prefect_api")
def test_a_wrong_run_ends_in_one_line(refuse: Callable[..., str], wrong: str, recipe: str, message: str) -> None:
    arguments = ["--as-of", "yesterday" if "as_of" in message else "2026-01-05"]
    assert message in refuse(recipe, *arguments, statuses=(EXIT_REFUSED, EXIT_FAILED))


@pytest.mark.parametrize("store", ["/proc/prosemill/store", "base/config.json/store"])
def test_a_store_that_cannot_be_written(refuse: Callable[..., str], home: Path, store: str) -> None:
    line = refuse(NAME + FOLDER + BASE + TINY, store=home / store, statuses=(EXIT_REFUSED,))
    assert "choose another with --store or PROSEMILL_STORE" in line


def in_a_mount(home: Path, options: str) -> subprocess.CompletedProcess[str]:
    """Run `prosemill retrain` with a small file system of its own mounted at the store."""
    (home / "recipe.toml").write_text(NAME + FOLDER + BASE + TINY)
    store = home / "mounted"
    store.mkdir(exist_ok=True)
    command = [sys.executable, "-c", "from flows.cli import main; main()", "retrain", str(home / "recipe.toml")]
    script = f'mount -t tmpfs -o {options} tmpfs "$1" && shift && exec "$@" --store "{store}"'
    return subprocess.run(
        ["unshare", "--mount", "--map-root-user", "sh", "-c", script, "sh", str(store), *command],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message", "status"),
    [
        ("ro", "choose another with --store", EXIT_REFUSED),
        ("size=9m", "the disk of the store is full (9 MB", EXIT_FAILED),
    ],
    ids=["read-only store", "full disk"],
)
def test_a_disk_that_refuses(home: Path, options: str, message: str, status: int) -> None:
    done = in_a_mount(home, options)
    assert done.returncode == status, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("prosemill: ")
    assert message in line


def test_a_disk_that_fills_up_on_the_way_leaves_nothing_half_written(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from prosemill.storage.store import Store\n"
        "store = Store(sys.argv[1]); store.check_writable()\n"
        "try:\n"
        "    with store.write('note-1', stage='note', version=1, parents=[], settings={}) as w:\n"
        "        w.path('big').write_bytes(bytes(64 << 20))\n"
        "except Exception as error: print(type(error).__name__, error)\n"
        "print(store.snapshots(), [path.name for path in pathlib.Path(sys.argv[1], 'tmp').iterdir()])\n"
    )
    script = f'mount -t tmpfs -o size=48m tmpfs "{tmp_path}" && exec "$@"'
    command = ["unshare", "--mount", "--map-root-user", "sh", "-c", script, "sh", sys.executable, "-c", program]
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, check=True, cwd=ROOT)
    error, left = done.stdout.splitlines()
    assert error.startswith("StoreFull ")
    assert "free some space and run the same command again" in error
    assert left == "[] []"


def test_wrong_usage_is_one_line_too(capfd: pytest.CaptureFixture[str]) -> None:
    for arguments in (["retrian", "x"], ["retrain"], ["retrain", "x", "--colour"], ["demo", "--week", "9"]):
        assert run(arguments) == EXIT_USAGE
        (line,) = capfd.readouterr().err.strip().splitlines()
        assert line.startswith("prosemill: ")
