"""What is used of Scrapy and lxml beside their documented interface; `tests/test_compat.py` checks each of it.

Scrapy has a setting for each host's pause, read when the host is first asked, and none that changes it afterwards.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from lxml.etree import _Element as Element  # lxml gives the class of its elements no other name

if TYPE_CHECKING:
    from scrapy import Request
    from scrapy.crawler import Crawler

__all__ = ["Element", "hold_host", "set_host_delay"]


def hold_host(crawler: Crawler, request: Request, seconds: float) -> None:
    """No request to the host of `request` for `seconds`. (A slot counts from its last request: that is set ahead.)"""
    downloader = crawler.engine.downloader
    slot = downloader.slots.get(downloader.get_slot_key(request))
    if slot is not None:
        slot.lastseen = max(slot.lastseen, time.monotonic() + seconds - slot.delay)


def set_host_delay(crawler: Crawler, request: Request, seconds: float) -> None:
    """From now on `seconds` between two requests to the host of `request`, also in a slot made anew after a pause."""
    downloader = crawler.engine.downloader
    host = downloader.get_slot_key(request)
    downloader.per_slot_settings[host] = {"delay": seconds}
    if host in downloader.slots:
        downloader.slots[host].delay = seconds
