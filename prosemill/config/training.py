"""Settings of training, of what is measured afterwards, and of writing with the result."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from prosemill.config.section import Section, Share


class Finetune(Section):
    """How the weights are adapted."""

    base: str = Field(
        default="demo",
        min_length=1,
        description="demo (embedded, for trying out), a Hugging Face name such as gpt2, or a local directory; rnn or "
        "transformer (small, from scratch), with :FILE beginning at word vectors.",
    )
    start: Literal["base", "champion"] = Field(
        default="base", description="Begin at the base every time, or go on from the champion."
    )
    epochs: float = Field(default=3.0, gt=0, le=1000, description="Passes over the training chunks.")
    max_steps: int = Field(
        default=0, ge=0, le=10_000_000, description="Stop after this many steps; 0: by epochs alone."
    )
    max_tokens: int = Field(
        default=0, ge=0, le=10**13, description="Stop after this many tokens; 0: by epochs alone. The schedule fits it."
    )
    budget_hours: float = Field(
        default=0,
        ge=0,
        le=720,
        description="Do no more steps than fit into this time, as the probe estimates; 0: by epochs alone.",
    )
    learning_rate: float = Field(
        default=3e-4, ge=0, le=1, description="Peak of the cosine schedule; 0: looked for, by a range test."
    )
    warmup_share: Share = Field(default=0.05, description="Share of the steps in which the rate climbs.")
    weight_decay: float = Field(default=0.1, ge=0, le=1, description="AdamW's decay of weight matrices.")
    max_grad_norm: float = Field(default=1.0, gt=0, le=100, description="Longer gradients are clipped.")
    batch_chunks: int = Field(default=8, ge=1, le=65_536, description="Chunks a step.")
    micro_batch_chunks: int = Field(default=4, ge=1, le=4096, description="Chunks on the device at once.")
    gradient_checkpointing: bool = Field(
        default=False,
        description="Keep less of the forward pass and compute it again: a third slower, far less memory.",
    )
    lora_rank: int = Field(
        default=0,
        ge=0,
        le=1024,
        description="Train small additions of this rank to every layer (LoRA; pip install peft); 0: all weights.",
    )
    num_processes: int = Field(
        default=1, ge=1, le=64, description="Processes that share a batch: one a GPU of this machine, or a CPU core."
    )
    fsdp: bool = Field(
        default=False,
        description="Each of the processes keeps a share of weights, gradients and optimizer state, for a model that "
        "does not fit on one card beside them (FSDP).",
    )
    replay_share: float = Field(
        default=0.0, ge=0, le=0.9, description="Share of the chunks that are old or general text, against forgetting."
    )
    replay: str = Field(
        default="earlier",
        min_length=1,
        description="What is replayed. earlier: what the champion learned from, with start = champion. Else a folder "
        "or file (txt, md, jsonl), or the id of a chunk snapshot.",
    )
    dropout: float = Field(
        default=0.0,
        ge=0,
        le=0.9,
        description="0 unless a small corpus is trained for many epochs: it costs half the speed.",
    )
    evals: int = Field(default=8, ge=1, le=1000, description="How often validation loss is measured in a run.")
    patience: int = Field(default=3, ge=1, le=1000, description="Stop after this many measurements without gain.")
    checkpoint_minutes: float = Field(
        default=10, gt=0, le=1440, description="At most this much training is lost to a kill."
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="auto: bf16 where a probe finds it faster."
    )
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="Same seed, snapshot and machine: same weights.")
    max_hours: float = Field(default=24, gt=0, le=720, description="A run that takes longer is stopped and fails.")

    @model_validator(mode="after")
    def _micro_batches_fill_the_batch(self) -> Finetune:
        if self.batch_chunks % min(self.micro_batch_chunks, self.batch_chunks):
            raise ValueError(
                f"batch_chunks {self.batch_chunks} is not a multiple of micro_batch_chunks {self.micro_batch_chunks}"
            )
        if self.batch_chunks % self.num_processes:
            raise ValueError(
                f"batch_chunks {self.batch_chunks} is not a multiple of num_processes {self.num_processes}"
            )
        if self.fsdp and (self.num_processes == 1 or self.lora_rank):
            raise ValueError("fsdp shares the weights among processes: set num_processes above 1, and lora_rank 0")
        return self


class Evaluate(Section):
    """What is measured on text that the models never saw."""

    stride: int = Field(
        default=512, ge=1, le=131_072, description="How far a window advances; the rest of it is context."
    )
    batch_windows: int = Field(default=8, ge=1, le=4096, description="Windows scored at once.")
    prompts: list[str] = Field(
        default=[],
        max_length=20,
        description="Beginnings for the samples. Empty: the first words of two test documents.",
    )
    sample_tokens: int = Field(default=80, ge=1, le=1024, description="Length of a sample.")
    sample_seed: int = Field(default=0, ge=0, le=2**31 - 1, description="Same seed before and after.")
    other_kilobytes: int = Field(
        default=20,
        ge=0,
        le=100_000,
        description="How much validation, training and general text (each) is scored beside the test pages; 0: none.",
    )
    general_path: str = Field(
        default="",
        description="General text, by which forgetting is seen: a folder or file (txt, md, jsonl, parquet). "
        "Empty: Python's reference manual.",
    )
    continuations: int = Field(
        default=8,
        ge=0,
        le=1000,
        description="How many test pages, and how many training pages, each model continues, to see whether it copies, "
        "repeats itself and has the style; 0: none.",
    )
    canaries: list[str] = Field(
        default=[],
        max_length=100,
        description="Sentences planted in the training text; a model that completes one from its first half gives it "
        "away.",
    )
    lm_eval_tasks: list[str] = Field(
        default=[],
        max_length=50,
        description="Tasks of EleutherAI's lm-evaluation-harness, if that is installed (pip install lm-eval).",
    )
    lm_eval_limit: int = Field(default=200, ge=1, le=1_000_000, description="Questions of each such task.")


class Write(Section):
    """What `prosemill write NAME` does unless its options say otherwise; of the newest run that trained."""

    temperature: float = Field(default=0.8, ge=0, le=10, description="0 always takes the likeliest token.")
    top_k: int = Field(default=50, ge=0, le=1_000_000, description="Draw among the k likeliest; 0: all.")
    top_p: float = Field(
        default=0.95, gt=0, le=1, description="Draw among the likeliest that make up this probability."
    )
    repetition_penalty: float = Field(default=1.1, ge=1, le=10, description="1: none (Keskar et al. 2019).")
    max_new_tokens: int = Field(default=120, ge=1, le=100_000, description="Length of the text to write.")
