"""The exceptions a person may see, and the exit code each one ends the command with.

    ProsemillError
    ├── RecipeError            the recipe (or an argument) is wrong; nothing was started
    ├── StoreError             the store cannot be used
    │   ├── StoreNotWritable   read-only, no permission, not a directory
    │   ├── StoreFull          no space left
    │   ├── StoreBusy          another run of the same corpus is going on
    │   ├── StoreRefused       no such bucket, no credentials, not allowed to read
    │   ├── StoreUnreachable   a remote store does not answer
    │   ├── RunUnknown         no run of that id or name has left a log
    │   └── SnapshotMissing    an id that no complete snapshot answers to
    ├── SourceError            a source gave nothing to read
    │   ├── SourceUnreachable  no answer from the site
    │   └── SourceEmpty        an answer, but no page in it
    ├── CrawlerDied            the crawling process was killed or failed
    ├── CorpusEmpty            every document was dropped on the way
    ├── StageDroppedTooMuch    a stage dropped more than the recipe allows
    ├── BaseModelError         the base cannot be loaded
    ├── TrainingError          the loss is not finite, the child died, the memory ran out
    ├── RegistryError          no such model, version or alias
    ├── ApprovalError          nothing waits for approval, or the answer comes too late
    ├── ModelUnhealthy                 a check of health found what only a person can put right
    ├── BackupError            a backup cannot be made, is damaged, or would overwrite what is there
    ├── Stopped                a child was stopped because its run was
    └── DemoError              the demo cannot be set up: its port is taken, its text is not installed

A message is one line: what is wrong, where, which value, what to do next.
"""

EXIT_COMPLETE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_PARTIAL = 3
EXIT_REFUSED = 4
EXIT_STOPPED = 130  # as a shell says of a program that Ctrl-C ended


class ProsemillError(Exception):
    """Base of everything that prosemill raises on purpose; `str()` is one line for a person."""

    exit_code = EXIT_FAILED


class RecipeError(ProsemillError):
    exit_code = EXIT_REFUSED


class StoreError(ProsemillError):
    pass


class StoreNotWritable(StoreError):
    exit_code = EXIT_REFUSED


class StoreFull(StoreError):
    pass


class StoreBusy(StoreError):
    exit_code = EXIT_REFUSED


class StoreRefused(StoreError):
    exit_code = EXIT_REFUSED


class StoreUnreachable(StoreError):
    pass


class RunUnknown(StoreError):
    exit_code = EXIT_REFUSED


class SnapshotMissing(StoreError):
    def __init__(self, snapshot: str, store: str) -> None:
        self.snapshot = snapshot
        super().__init__(
            f"{store}: no complete snapshot {snapshot}; rebuild it with `prosemill retrain RECIPE --refresh`"
        )


class SourceError(ProsemillError):
    exit_code = EXIT_REFUSED


class SourceUnreachable(SourceError):
    exit_code = EXIT_FAILED


class SourceEmpty(SourceError):
    pass


class CrawlerDied(ProsemillError):
    pass


class CorpusEmpty(ProsemillError):
    exit_code = EXIT_REFUSED


class StageDroppedTooMuch(ProsemillError):
    exit_code = EXIT_REFUSED


class BaseModelError(ProsemillError):
    exit_code = EXIT_REFUSED


class TrainingError(ProsemillError):
    pass


class RegistryError(ProsemillError):
    exit_code = EXIT_REFUSED


class ApprovalError(ProsemillError):
    exit_code = EXIT_REFUSED


class BackupError(ProsemillError):
    exit_code = EXIT_REFUSED


class DemoError(ProsemillError):
    exit_code = EXIT_REFUSED


class ModelUnhealthy(ProsemillError):
    pass


class Stopped(ProsemillError):
    exit_code = EXIT_STOPPED
