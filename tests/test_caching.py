"""The cache key is made of stage, version, ids and settings, and of nothing else."""

from prosemill.config.settings import Dedup
from tasks.support.caching import in_batches, stage_key


def test_the_same_work_has_the_same_key_in_any_order_and_process() -> None:
    first = stage_key("dedup", 1, {"store": "s", "strip": "strip-1", "settings": Dedup()})
    again = stage_key("dedup", 1, {"settings": Dedup(threshold=0.8), "strip": "strip-1", "store": "s"})
    assert first == again
    assert first.startswith("dedup-")


def test_other_work_has_another_key() -> None:
    base = {"store": "s", "strip": "strip-1", "settings": Dedup()}
    keys = {
        stage_key("dedup", 1, base),
        stage_key("dedup", 2, base),
        stage_key("split", 1, base),
        stage_key("dedup", 1, {**base, "strip": "strip-2"}),
        stage_key("dedup", 1, {**base, "settings": Dedup(threshold=0.9)}),
        stage_key("dedup", 1, {**base, "store": "t"}),
    }
    assert len(keys) == 6


def test_two_hundred_shards_make_eight_batches() -> None:
    shards = [f"shard-{number}" for number in range(200)]
    batches = in_batches(shards)
    assert len(batches) == 8
    assert [shard for batch in batches for shard in batch] == shards
    assert in_batches(["one"]) == [["one"]]
    assert in_batches([]) == []
