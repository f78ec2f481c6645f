"""What we use of other packages beside their documented interface: in compat.py alone, and as it is assumed to be.

When an upgrade makes one of these fail, its message names the library, what was assumed, and what of ours breaks.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import importlib
import inspect
import logging
import re
import sys
import textwrap
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.test_layout import ROOT, STOREYS, modules

DOCUMENTED = {"os._exit"}
# Modules without an underscore that their packages do not document, or call internal.
NOT_PUBLIC = ("prefect.server", "prefect.input.run_input", "prefect.utilities.schema_tools", "mlflow.system_metrics")
# … but this one checks values as Prefect's API does, which nothing public can; prefect.yaml's checks fall with it.
PUBLIC_ENOUGH = {"deployments/checks.py": {"prefect.utilities.schema_tools"}}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def defined_in(tree: ast.AST) -> set[str]:
    """Names of functions and classes, and of variables and attributes that are assigned."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def foreign_privates(source: str, path: str = "") -> Iterator[str]:
    """Lines of a module that use what another one calls private, or a module that is not public."""
    tree = ast.parse(source)
    own = defined_in(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in own:
            named = ast.unparse(node)
            if named not in DOCUMENTED:
                yield f"{node.lineno}: {named}"
        elif isinstance(node, ast.Attribute) and is_private(node.attr) and isinstance(node.ctx, ast.Store):
            if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
                yield f"{node.lineno}: {ast.unparse(node)} = …"
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from (f"{node.lineno}: {name}" for name in imported(node) if not is_public(name, path))
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "setattr", "hasattr"):
            named = node.args[1].value if isinstance(node.args[1], ast.Constant) else ""
            if is_private(str(named)):
                yield f"{node.lineno}: {ast.unparse(node)}"


def imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    prefix = f"{node.module or ''}." if isinstance(node, ast.ImportFrom) else ""
    return [prefix + alias.name for alias in node.names]


def is_public(name: str, path: str) -> bool:
    if any(is_private(part) for part in name.split(".")):
        return False
    inside = [private for private in NOT_PUBLIC if f"{name}.".startswith(f"{private}.")]
    return all(private in PUBLIC_ENOUGH.get(path, ()) for private in inside)


def test_private_names_of_others_are_used_in_compat_alone() -> None:
    places = [
        f"{path.relative_to(ROOT)}:{line}"
        for storey in STOREYS
        for path in modules(storey)
        if path.name != "compat.py"
        for line in foreign_privates(path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix())
    ]
    assert places == [], "move each into the compat.py of its package, with a test of what it assumes in this file"


@pytest.mark.parametrize(
    "source",
    [
        "from lxml.etree import _Element",
        "import prefect._internal.concurrency",
        "from prefect.server.database import orm_models",
        "def f(model):\n    return model.config._attn_implementation",
        "def f(facet):\n    facet._schemaURL = 1",
        "class C(Trainer):\n    def f(self):\n        self._inner_training_loop()",
        "getattr(values, '_mmap', None)",
    ],
)
def test_a_private_name_is_found(source: str) -> None:
    assert len(list(foreign_privates(source))) == 1


def test_own_private_names_pass() -> None:
    own = "class C:\n    def _b(self):\n        self._a = 1\n        return self._a\ndef f(c: C):\n    return c._b()"
    assert list(foreign_privates(own)) == []


def own_private_names(kind: type) -> set[str]:
    """Methods and attributes with an underscore that the class itself defines or sets."""
    source = textwrap.dedent(inspect.getsource(kind))
    return {name for name in defined_in(ast.parse(source)) if is_private(name)}


def private_names_of_bases(kind: type) -> set[str]:
    names = set()
    for base in kind.__mro__[1:]:
        if base.__module__.split(".")[0] in (*STOREYS, *sys.stdlib_module_names):
            continue
        names |= {name for name in vars(base) if is_private(name)}
        with contextlib.suppress(OSError):  # of a class that is not written in Python
            names |= set(re.findall(r"self\.(_[a-z]\w*)", inspect.getsource(base)))
    return names


def derived_classes() -> list[type]:
    """Our classes that derive from something, outside compat.py."""
    classes = []
    for storey in STOREYS:
        for path in modules(storey):
            if path.name in ("compat.py", "child.py"):
                continue
            tree = ast.parse(path.read_text(encoding="utf-8"))
            names = [node.name for node in tree.body if isinstance(node, ast.ClassDef) and node.bases]
            if names:
                module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
                classes += [getattr(module, name) for name in names]
    return classes


def test_no_class_of_ours_overrides_what_its_foreign_base_calls_private() -> None:
    clashes = {
        f"{kind.__module__}.{kind.__name__}": clash
        for kind in derived_classes()
        if (clash := own_private_names(kind) & private_names_of_bases(kind))
    }
    assert clashes == {}


# --- what each compat.py assumes -------------------------------------------------------------------------------------


def test_tiktoken_encodes_the_bytes_of_one_word() -> None:
    from tiktoken import Encoding

    from prosemill.chunk.compat import piece_encoder

    ranks = {bytes([byte]): byte for byte in range(256)} | {b"he": 256, b"hey": 257}
    encode = piece_encoder(Encoding("tiny", pat_str=r"\S+", mergeable_ranks=ranks, special_tokens={}))
    assert encode(b"heyo") == [257, ord("o")], (
        "tiktoken: Encoding._core_bpe.encode_single_piece takes bytes and gives ids; without it the table of words "
        "(prosemill.chunk.words) cannot be filled, and chunking takes three times as long"
    )


def test_numpy_keeps_the_map_of_a_memmap(tmp_path: Path) -> None:
    from prosemill.dedup.compat import memory_map_of

    (tmp_path / "numbers").write_bytes(bytes(4096))
    assert hasattr(memory_map_of(np.memmap(tmp_path / "numbers", np.uint64, "r")), "madvise"), (
        "numpy: a memmap keeps its mmap as _mmap; without it dedup's shingles stay in memory after they are read, and "
        "the memory of a large dedup grows with the corpus"
    )
    assert memory_map_of(np.zeros(3)) is None


def test_torch_multiplies_by_packed_weights() -> None:
    import torch

    from prosemill.models.compat import pack_linear_weight, packed_linear

    torch.manual_seed(0)
    weight, bias, inputs = torch.randn(24, 16), torch.randn(24), torch.randn(2, 5, 16)
    expected = torch.nn.functional.linear(inputs, weight, bias)
    with torch.inference_mode():
        assert torch.allclose(packed_linear(inputs, pack_linear_weight(weight), bias), expected, atol=1e-4), (
            "torch: torch.ops.mkldnn has _reorder_linear_weight and _linear_pointwise for float32 on a CPU; without "
            "them models score and write with plain layers, at half the speed (prosemill.models.inference)"
        )


def test_torch_gives_the_gradient_of_a_softmax() -> None:
    import torch

    from prosemill.finetune.compat import softmax_backward

    scores = torch.randn(3, 7, requires_grad=True, generator=torch.Generator().manual_seed(0))
    share = torch.softmax(scores, -1)
    gradient = torch.randn(3, 7, generator=torch.Generator().manual_seed(1))
    share.backward(gradient)
    assert scores.grad is not None
    assert torch.allclose(softmax_backward(gradient, share.detach()), scores.grad, atol=1e-6), (
        "torch: _softmax_backward_data(gradient, output, dim, dtype) is the gradient of softmax; without it attention "
        "by blocks (prosemill.finetune.attention) cannot train"
    )


def test_a_transformers_configuration_knows_its_attention() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    from prosemill.finetune.compat import attention_of

    model = GPT2LMHeadModel(GPT2Config(vocab_size=8, n_positions=8, n_embd=4, n_layer=1, n_head=1))
    before = attention_of(model)
    model.set_attn_implementation("eager")
    assert (before, attention_of(model)) == ("sdpa", "eager"), (
        "transformers: config._attn_implementation names the attention in use; without it a trained model cannot be "
        "given back with the attention that it came with (prosemill.finetune.loss_wrapper)"
    )


@pytest.mark.parametrize(
    "name",
    ["_tied_weights_keys", "_no_split_modules", "_supports_sdpa", "_supports_attention_backend", "_init_weights"],
)
def test_transformers_asks_a_model_by_these_names(name: str) -> None:
    from transformers import PreTrainedModel

    assert f".{name}" in inspect.getsource(PreTrainedModel), (
        f"transformers: PreTrainedModel reads {name} of a model; without it the small models rnn and transformer "
        "(prosemill.models.baselines) lose tied weights, their attention or what they were trained to"
    )


TRAINER_HOOKS = {
    "_clip_grad_norm": ["model"],
    "_save_checkpoint": ["model", "trial"],
    "_load_from_checkpoint": ["resume_from_checkpoint", "model"],
    "_load_optimizer_and_scheduler": ["checkpoint"],
    "_load_rng_state": ["checkpoint"],
    "_prepare_inputs": ["inputs"],
}


@pytest.mark.parametrize("name", TRAINER_HOOKS)
def test_the_trainer_calls_its_private_methods_as_ours_are_written(name: str) -> None:
    from transformers import Trainer

    broken = (
        f"transformers: Trainer.{name}({', '.join(TRAINER_HOOKS[name])}) is a step of its training loop; without it "
        "prosemill.finetune.compat.HookedTrainer saves, resumes or clips as the Trainer does, and a resumed training "
        "is no longer the same to the bit"
    )
    assert hasattr(Trainer, name), broken
    assert list(inspect.signature(getattr(Trainer, name)).parameters)[1:] == TRAINER_HOOKS[name], broken
    assert sum(f"self.{name}(" in inspect.getsource(kind) for kind in Trainer.__mro__[:-1]) >= 1, broken


def test_the_trainer_keeps_a_schedule_that_it_was_given() -> None:
    from transformers import Trainer

    assert "self._created_lr_scheduler = True" in inspect.getsource(Trainer.create_scheduler), (
        "transformers: _created_lr_scheduler says that the schedule is the Trainer's to save and reset; without it "
        "HookedTrainer.use_schedule has to say so in another way, or rates start anew after a halved batch"
    )


def test_an_openlineage_facet_takes_a_schema_of_its_own() -> None:
    from openlineage.client.facet_v2 import RunFacet
    from openlineage.client.serde import Serde

    from prosemill.lineage.compat import with_schema

    facet = with_schema(
        RunFacet(producer="https://a.example").with_additional_properties(stage="strip"), "https://b.example"
    )
    assert Serde.to_dict(facet)["_schemaURL"] == "https://b.example", (
        "openlineage-python: a facet is sent with what its _schemaURL holds; without it the events' run facet of ours "
        "names the schema of a plain RunFacet (prosemill.lineage.openlineage_events)"
    )


def test_mlflows_monitors_look_at_the_machine(tmp_path: Path) -> None:
    from prosemill.registry.compat import SystemMetrics

    machine = SystemMetrics("0" * 32, f"sqlite:///{tmp_path}/none.db", resumed=False)
    seen = machine.look()
    assert machine.step == 1
    assert "cpu_utilization_percentage" in seen, (
        "mlflow: SystemMetricsMonitor has _logging_step, monitors, collect_metrics and aggregate_metrics; without them "
        "the page of system metrics of a training stays empty (prosemill.registry.live_metrics)"
    )


def test_scrapy_keeps_a_slot_for_each_host() -> None:
    asyncio.run(look_at_slots())


async def look_at_slots() -> None:
    from scrapy import Request
    from scrapy.core.downloader import Downloader
    from scrapy.utils.test import get_crawler

    from prosemill.scrape.compat import hold_host, set_host_delay

    broken = (
        "scrapy: the downloader keeps slots by get_slot_key(request), each with delay and lastseen, and makes new ones "
        "by per_slot_settings; without them Retry-After and robots.txt's crawl-delay are not kept "
        "(prosemill.scrape.politeness, spider)"
    )
    crawler: Any = get_crawler(settings_dict={"DOWNLOAD_DELAY": 1, "DOWNLOAD_DELAY_JITTER": 0})
    downloader = Downloader(crawler)
    crawler.engine = types.SimpleNamespace(downloader=downloader)
    request, before = Request("https://a.example/page"), time.monotonic()
    try:
        set_host_delay(crawler, request, 7)
        _, slot = downloader._get_slot(request)
        assert (slot.delay, slot.download_delay()) == (7, 7), broken
        set_host_delay(crawler, request, 9)
        assert slot.delay == 9, broken
        hold_host(crawler, request, 60)
        assert slot.lastseen + slot.delay >= before + 60, broken
        assert "slot.lastseen" in inspect.getsource(Downloader), broken
    finally:
        downloader.close()


@pytest.mark.parametrize("package", ["scrape", "strip"])
def test_lxml_elements_are_of_one_class(package: str) -> None:
    from lxml import etree, html

    element = importlib.import_module(f"prosemill.{package}.compat").Element
    assert isinstance(etree.fromstring(b"<a/>"), element), "lxml: what it parses is an etree._Element; types are wrong"
    assert issubclass(html.HtmlElement, element)


def test_typer_raises_wrong_usage_by_one_class() -> None:
    import typer

    from flows.cli.compat import WrongUsage

    broken = (
        "typer: the first base of BadParameter is what every wrong usage is raised as, with format_message(); without "
        "it a mistyped command ends with exit code 1 and a traceback's last line, not with 2 (flows.cli.app)"
    )
    app = typer.Typer(add_completion=False)
    app.command()(lambda: None)
    with pytest.raises(WrongUsage) as wrong:
        app(["--no-such-option"], standalone_mode=False)
    assert "no-such-option" in wrong.value.format_message(), broken
    assert WrongUsage not in (Exception, RuntimeError), broken


def test_prefects_ui_keeps_the_login_under_this_name() -> None:
    import prefect.server

    from flows.support.compat import UI_LOGIN_KEY

    assert prefect.server.__file__ is not None
    scripts = list(Path(prefect.server.__file__).parent.glob("ui*/assets/*.js"))
    holders = {path.parts[-3] for path in scripts if UI_LOGIN_KEY in path.read_text(encoding="utf-8")}
    assert holders == {path.parts[-3] for path in scripts} != set(), (
        f"prefect: its UIs keep the login as {UI_LOGIN_KEY!r} in localStorage; without it the link that `prosemill up` "
        "prints opens a page that asks for a password (flows.support.own_origin)"
    )


def test_prefects_temporary_server_is_told_so_by_this_variable() -> None:
    from prefect.server.api import server

    from flows.support.compat import EPHEMERAL_VARIABLE

    assert f'os.getenv("{EPHEMERAL_VARIABLE}")' in inspect.getsource(server), (
        f"prefect: {EPHEMERAL_VARIABLE} starts a server without UI and services; without it `prosemill retrain` starts "
        "a full one for each run, some seconds later (flows.support.local_server)"
    )


def test_prefects_sqlite_takes_the_write_lock_when_it_is_asked_to() -> None:
    from prefect.server.database.configurations import AioSqliteConfiguration

    from flows.support.compat import locking_sqlite

    assert isinstance(locking_sqlite("sqlite+aiosqlite:///:memory:"), AioSqliteConfiguration)
    assert list(inspect.signature(AioSqliteConfiguration.begin_transaction).parameters)[1:] == [
        "session",
        "with_for_update",
    ], (
        "prefect: AioSqliteConfiguration.begin_transaction(session, with_for_update) opens every transaction of the "
        "server; without it concurrent runs meet 'database is locked' (tests/test_server_app.py shows that it works)"
    )


def test_prefect_keeps_what_a_form_said_where_we_look() -> None:
    from prefect import flow_runs

    from flows.support.compat import response_key

    assert response_key("approval") == "suspended-approval-response"
    assert "keyset_from_paused_state" in inspect.getsource(flow_runs), (
        "prefect: a suspended run's form is answered under keyset_from_base_key('suspended-KEY')['response']; without "
        "it an approval given while the run was down is not found (flows.approval)"
    )


def test_prefect_names_the_error_of_a_failed_run_behind_this_prefix() -> None:
    from prefect import flow_engine

    from tasks.support.compat import FAILED_PREFIX

    assert f'"{FAILED_PREFIX.strip()}"' in inspect.getsource(flow_engine), (
        f"prefect: the message of a failed run begins with {FAILED_PREFIX!r}; without it that stands before each "
        "reason that a person is shown (tasks.support.reporting, flows.support.gpu_handover)"
    )


def test_prefect_configures_extra_loggers_after_one_of_its_own() -> None:
    from prefect.logging.configuration import setup_logging

    from tasks.support.compat import run_page_handlers

    setup_logging()
    assert any(isinstance(handler, logging.Handler) for handler in run_page_handlers()), (
        "prefect: the logger prefect.extra holds the handlers of a run's page; without it the core's log lines are "
        "missing there (tasks.support.reporting)"
    )
