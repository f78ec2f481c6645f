"""What is used of lxml beside its documented interface; `tests/test_compat.py` checks each of it."""

from lxml.etree import _Element as Element  # lxml gives the class of its elements no other name

__all__ = ["Element"]
