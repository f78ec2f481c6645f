"""The question whether a challenger may take over, as Markdown: what a person decides on."""

from __future__ import annotations

from prosemill.gate.approval import ApprovalState
from prosemill.reporting import pages, summary
from prosemill.storage.decision_record import read_decision
from prosemill.storage.store import Store


def question_markdown(store: Store, question: ApprovalState, evaluation: str) -> str:
    """The gate's sentence, the scores with their intervals, and samples before and after."""
    reason = pages.plain(read_decision(store, question.gate)["reason"])
    rows = [[str(value) for value in row.values()] for row in pages.score_rows(summary.score_table(store, evaluation))]
    header = ("model", "perplexity", "bits per byte", "documents")
    parts = [
        f"# May {question.model} take over?",
        f"{reason} It waits until **{question.until}**; no answer means no. From a shell: `prosemill approve "
        f"{question.name}` or `prosemill approve {question.name} --refuse`.",
        "## On text that no model has seen (test split, 95 % intervals)",
        pages.table(header, rows, header[1:]),
        "## The same prompts and seed before and after",
        pages.samples_markdown(store, evaluation),
    ]
    return "\n\n".join(parts)
