"""The recipe: one model's life, as the TOML file a person writes and the form that the Prefect UI shows.

Every field is described, bounded and has a default that is right for a newcomer. `recipe` reads the file and
turns what is wrong with it into one line.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, model_validator

from prosemill.config import schedules

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Probability = Annotated[float, Field(gt=0.0, lt=1.0)]
# A parameter of flows. The pattern is for the form alone: elsewhere `summary.checked_date` refuses in better words.
AsOf = Annotated[str, Field(json_schema_extra={"pattern": r"^(\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}.*)?)?$"})]


class Section(BaseModel):
    """A table of the recipe; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


_HAS_URLS: dict[str, JsonValue] = {"properties": {"urls": {"minItems": 1}}, "required": ["urls"]}
_HAS_PATH: dict[str, JsonValue] = {"properties": {"path": {"minLength": 1}}, "required": ["path"]}


class Source(Section):
    """A site, list, folder, archive or data set that we may read."""

    # What `_has_an_address` says, for the form: a source without an address is refused before a run is started.
    model_config = ConfigDict(
        json_schema_extra={
            "if": {"properties": {"kind": {"enum": ["folder", "warc", "dataset"]}}, "required": ["kind"]},
            "then": _HAS_PATH,
            "else": {
                "if": {
                    "properties": {"kind": {"const": "urls"}, "path": {"minLength": 1}},
                    "required": ["kind", "path"],
                },
                "else": _HAS_URLS,
            },
        }
    )

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9-]{0,39}$", description="Short name: lower-case letters, digits and hyphens."
    )
    kind: Literal["site", "urls", "folder", "warc", "dataset"] = Field(
        default="site",
        description="site: follow links from the start URLs. urls: just these URLs. folder: files on disk. "
        "warc: a web archive. dataset: a Hugging Face data set.",
    )
    urls: list[str] = Field(default=[], title="URLs", description="site: the start URLs. urls: every URL to read.")
    path: str = Field(
        default="",
        description="folder: the folder. warc: the file. urls: a text file with one URL a line. dataset: a hub name, "
        "or a folder or file of parquet, json, csv or txt. Relative to the recipe.",
    )
    include: list[str] = Field(
        default=[], description="Regular expressions; a URL (or relative file name) must match one of them."
    )
    exclude: list[str] = Field(default=[], description="Regular expressions; a URL that matches one is skipped.")
    text_column: str = Field(default="text", description="dataset and .jsonl files: the column that holds the text.")
    dataset_config: str = Field(default="", description="dataset: the configuration, where the data set has several.")
    dataset_split: str = Field(default="train", description="dataset: which split of it to read.")
    licence: str = Field(default="", description="Under which licence or permission this text is used.")

    @model_validator(mode="after")
    def _has_an_address(self) -> Source:
        if self.kind == "site" and not self.urls:
            raise ValueError('kind "site" needs urls, the start URLs')
        if self.kind == "urls" and not (self.urls or self.path):
            raise ValueError('kind "urls" needs urls, or path to a file with one URL a line')
        if self.kind in ("folder", "warc", "dataset") and not self.path:
            raise ValueError(f'kind "{self.kind}" needs path')
        return self


class Scrape(Section):
    """How politely and how far."""

    user_agent: str = Field(
        default="prosemill",
        min_length=1,
        max_length=200,
        description="Product token that robots.txt is read for; add an address where you can be reached.",
    )
    delay_seconds: float = Field(
        default=1.0, ge=0, le=600, description="Pause between two requests to one host; robots' crawl-delay is a floor."
    )
    max_pages: int = Field(
        default=10_000,
        ge=1,
        le=10_000_000,
        description="Stop a site or hub data set after this many pages; what lies on disk is read whole.",
    )
    max_depth: int = Field(default=10, ge=0, le=100, description="How many links away from a start URL.")
    max_minutes: float = Field(default=120, gt=0, le=10_080, description="Stop a source after this time.")
    max_page_megabytes: float = Field(
        default=10, gt=0, le=1000, description="A longer body is not kept; above 20 MB strip drops it, as too_large."
    )
    timeout_seconds: float = Field(default=30, gt=0, le=600, description="For one request.")
    obey_robots: bool = Field(default=True, description="Read robots.txt and keep to it (RFC 9309).")
    obey_opt_outs: bool = Field(
        default=True, description="Leave out pages whose owner opted out of AI use (robots, meta, headers, TDMRep)."
    )
    allow_private_addresses: bool = Field(
        default=False, description="Let this recipe read loopback and private addresses, for a site of your own."
    )
    follow_query_strings: bool = Field(default=False, description="Follow links that carry a ?query.")


class Strip(Section):
    """From pages to text worth learning from."""

    languages: list[str] = Field(
        default=[],
        description="Keep only these (ISO 639-1). Empty: the recipe's language. One entry '*': any language.",
    )
    min_words: int = Field(default=20, ge=0, le=100_000, description="A shorter document is dropped as thin.")
    max_repetition: Share = Field(
        default=0.5, description="Drop a document when more than this share of its lines repeat other lines of it."
    )
    max_symbol_share: Share = Field(
        default=0.4,
        description="Drop a document when more than this share of its characters is neither letter nor space.",
    )
    keep_tables: bool = Field(default=True, description="Keep tables, one row a line.")
    keep_comments: bool = Field(default=False, description="Keep readers' comments.")
    scrub_email: bool = Field(default=True, description="Replace e-mail addresses by [e-mail].")
    scrub_phone: bool = Field(default=True, description="Replace telephone numbers by [phone].")
    scrub_ip: bool = Field(default=True, title="Scrub IP", description="Replace IP addresses by [ip].")
    scrub_id_numbers: bool = Field(default=True, description="Replace card and national id numbers by [id].")
    quarantine_share: Share = Field(
        default=0.3,
        description="A source whose new pages give less than this share of the text a page gave the night before is "
        "not learned from until a person has looked: its site was rebuilt. 0: let everything through.",
    )
    max_dropped_share: Share = Field(
        default=0.9, description="Stop when more than this share of the pages gives no document: something is broken."
    )


class Dedup(Section):
    """Near-duplicates, by MinHash candidates and an exact check."""

    threshold: float = Field(
        default=0.8, ge=0.5, le=1.0, description="Jaccard similarity from which a document is a copy."
    )
    loose_threshold: float = Field(
        default=0.65, ge=0.3, le=1.0, description="Documents this similar always share a split, so that nothing leaks."
    )
    num_perm: Literal[64, 128, 256] = Field(default=128, description="Length of a MinHash signature.")
    shingle_words: int = Field(
        default=5, ge=1, le=20, description="Words (for Chinese, Japanese, Korean: characters) a shingle."
    )
    boilerplate_pages: int = Field(
        default=10,
        ge=2,
        le=10_000,
        description="A line on at least this many pages of a source is boilerplate and goes …",
    )
    boilerplate_share: Probability = Field(default=0.05, description="… if it is on at least this share of them.")

    @model_validator(mode="after")
    def _loose_is_looser(self) -> Dedup:
        if self.loose_threshold > self.threshold:
            raise ValueError(f"loose_threshold {self.loose_threshold} is above threshold {self.threshold}")
        return self


class Split(Section):
    """What is held out. A document's split is fixed when it is first seen."""

    test_share: Probability = Field(default=0.1, description="Held out for the gate.")
    validation_share: Probability = Field(default=0.05, description="Held out for early stopping.")
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="Another seed holds out other documents.")

    @model_validator(mode="after")
    def _leaves_something(self) -> Split:
        if self.test_share + self.validation_share > 0.9:
            raise ValueError("test_share and validation_share leave less than a tenth to train on")
        return self


class Chunk(Section):
    """Training examples."""

    chunk_tokens: int = Field(
        default=1024, ge=32, le=131_072, description="Token ids a chunk; the base's context at most."
    )


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


class Gate(Section):
    """When the challenger takes over."""

    confidence: float = Field(
        default=0.95,
        ge=0.5,
        lt=1,
        description="Of the interval of the difference when its test pages are judged by for the first time; "
        "each time they are used again it takes more.",
    )
    margin: float = Field(
        default=0.005,
        ge=0,
        le=5,
        description="Bits per byte that the challenger must gain beyond, at that confidence; another seed alone makes "
        "some 0.002.",
    )
    max_old_loss: float = Field(
        default=0.02,
        ge=0,
        le=10,
        description="Bits per byte that the challenger may lose on test pages that the champion's corpus knew.",
    )
    max_general_loss: float = Field(
        default=0.5, ge=0, le=10, description="Bits per byte that it may lose on general text, against the champion."
    )
    max_copied: Share = Field(
        default=0.2,
        description="Share of 13-word runs in its continuations that may stand in the training text, beyond the share "
        "in the test pages themselves.",
    )
    max_verbatim_words: int = Field(
        default=50,
        ge=1,
        le=1_000_000,
        description="Longest run of words in its continuations that may stand in the training text, unless the test "
        "pages themselves have a longer one.",
    )
    max_repetition: Share = Field(
        default=0.5, description="Share of 4-word runs in a continuation that may have stood in it before."
    )
    resamples: int = Field(default=10_000, ge=100, le=1_000_000, description="Of the paired bootstrap over documents.")
    min_test_documents: int = Field(default=5, ge=2, le=1_000_000, description="Fewer are no evidence.")
    min_new_documents: int = Field(
        default=1,
        ge=0,
        le=1_000_000_000,
        description="Fewer new training documents than this are not worth retraining for.",
    )
    min_new_tokens: int = Field(
        default=1, ge=0, le=10**15, description="Fewer new training tokens than this are not worth retraining for."
    )
    known_margin: float = Field(
        default=0.3,
        ge=0,
        le=10,
        description="New pages are known already, and not worth retraining for, when the champion needs at least this "
        "many bits per byte less for them than for its test pages; 0: never ask.",
    )
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="Of the resampling.")
    approval: bool = Field(
        default=False, description="A better challenger waits until a person lets it take over; no answer means no."
    )
    approval_hours: float = Field(
        default=24, gt=0, le=8760, description="How long it waits for that person before the answer is no."
    )


class Write(Section):
    """What `prosemill write NAME` does unless its options say otherwise; of the newest run that trained."""

    temperature: float = Field(default=0.8, ge=0, le=10, description="0 always takes the likeliest token.")
    top_k: int = Field(default=50, ge=0, le=1_000_000, description="Draw among the k likeliest; 0: all.")
    top_p: float = Field(
        default=0.95, gt=0, le=1, description="Draw among the likeliest that make up this probability."
    )
    repetition_penalty: float = Field(default=1.1, ge=1, le=10, description="1: none (Keskar et al. 2019).")
    max_new_tokens: int = Field(default=120, ge=1, le=100_000, description="Length of the text to write.")


class Recipe(Section):
    """One model's life: where its text comes from, how it is trained, when it takes over."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9-]{0,39}$",
        description="Names the corpus and the model: lower-case letters, digits and hyphens.",
    )
    description: str = Field(default="", description="What this model is for; shown with its deployment.")
    language: str = Field(default="en", pattern=r"^[a-z]{2}$", description="Of the corpus, as ISO 639-1: en, zh, de …")
    sources: list[Source] = Field(min_length=1, description="Where the text comes from.")
    scrape: Scrape = Field(default=Scrape(), title="Scrape")
    strip: Strip = Field(default=Strip(), title="Strip")
    dedup: Dedup = Field(default=Dedup(), title="Dedup")
    split: Split = Field(default=Split(), title="Split")
    chunk: Chunk = Field(default=Chunk(), title="Chunk")
    finetune: Finetune = Field(default=Finetune(), title="Fine-tune")
    evaluate: Evaluate = Field(default=Evaluate(), title="Evaluate")
    gate: Gate = Field(default=Gate(), title="Gate")
    write: Write = Field(default=Write(), title="Write")

    @model_validator(mode="after")
    def _is_consistent(self) -> Recipe:
        names = [source.name for source in self.sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two sources are named {twice[0]!r}; each needs a name of its own")
        if self.evaluate.stride > self.chunk.chunk_tokens:
            raise ValueError(
                f"evaluate.stride {self.evaluate.stride} is longer than chunk.chunk_tokens {self.chunk.chunk_tokens}"
            )
        return self


Cron = Annotated[str, Field(max_length=100), AfterValidator(schedules.checked_cron)]
Job = Annotated[dict[str, JsonValue], AfterValidator(schedules.checked_job)]
Tag = Annotated[str, Field(min_length=1, max_length=100)]


class Deploy(Section):
    """When the recipe runs by itself, and on what; read by `prosemill deploy`, no part of a run's parameters."""

    cron: Cron = Field(default="", description="When to retrain: minute hour day month weekday. Empty: by hand only.")
    corpus_cron: Cron = Field(
        default="", description="When to bring the corpus up to date without training. Empty: by hand only."
    )
    health_cron: Cron = Field(
        default="0 6 * * *",
        description="When to ask whether the model is well, where max_age_days or retrain_on calls for it.",
    )
    timezone: Annotated[str, AfterValidator(schedules.checked_timezone)] = Field(
        default="UTC", description="By which clock the schedules go, such as Europe/Berlin."
    )
    on_collision: Literal["enqueue", "cancel-new"] = Field(
        default="enqueue", description="What becomes of a run that is due while one of the same deployment is going on."
    )
    priority: Literal["first", "normal", "last"] = Field(
        default="normal", description="Whose turn it is when several recipes wait for the same workers."
    )
    tags: list[Tag] = Field(default=[], max_length=20, description="More tags for the runs, to find them by in the UI.")
    retrain_on: list[Literal["new-data", "unwell", "opt-out"]] = Field(
        default=[], description="What else starts a retraining: new-data, unwell, opt-out; any of them."
    )
    max_age_days: float = Field(
        default=0, ge=0, le=3650, description="A champion trained longer ago than this is unwell; 0: age is no matter."
    )
    cpu_job: Job = Field(default={}, description="Job variables of runs on the cpu pool: env, image, memory_request …")
    gpu_job: Job = Field(default={}, description="Job variables of runs on the gpu pool: env, image, gpu_count …")

    @property
    def watches_health(self) -> bool:
        return bool(self.max_age_days) or "unwell" in self.retrain_on


class RecipeFile(Recipe):
    """What the TOML file may hold: the recipe, and when and where it runs."""

    deploy: Deploy = Field(default=Deploy(), title="Deploy")
