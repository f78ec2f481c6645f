"""What a charset label means: the WHATWG Encoding Standard (webencodings), then Python's own names."""

from __future__ import annotations

import codecs
import re

import webencodings

# Not in the standard: a name of Windows' own code page, whatever it is; on the web nearly always this one.
_UNOFFICIAL = {"ansi": "windows-1252"}
# What the standard reads as another: its gbk decoder is that of gb18030, and a page in x-user-defined is one in Latin.
_READ_AS = {"gbk": "gb18030", "x-user-defined": "windows-1252"}
_NO_CHARSET = {"idna", "punycode", "utf-7", "undefined"}  # codecs of Python that no page is in
_PARAMETER = re.compile(r"""charset\s*=\s*["']?\s*([\w:.-]{2,40})""", re.IGNORECASE | re.ASCII)


def label_in(content_type: str) -> str:
    """The charset label in a Content-Type header, "" without one."""
    match = _PARAMETER.search(content_type)
    return match[1] if match else ""


def codec_of(label: str) -> str:
    """Python's codec for a charset label of the web, "" for one that nobody knows.

    Supersets (cp1252 for ISO-8859-1, gb18030, cp949, cp932 …) decode all that the labelled charset can hold, and what
    browsers let pass beside it. Where the standard refuses to read (ISO-2022-KR, HZ), Python does.
    """
    label = label.strip().lower()
    python = _python_name(label)
    encoding = webencodings.lookup(_UNOFFICIAL.get(label, label)) or webencodings.lookup(python)
    if encoding is None or encoding.name == "replacement":
        return python
    read_as = webencodings.lookup(_READ_AS.get(encoding.name, encoding.name))
    return _python_name(read_as.codec_info.name) if read_as else ""


def _python_name(label: str) -> str:
    try:
        name = codecs.lookup(label).name
        if name in _NO_CHARSET:
            return ""
        b"a".decode(name, "replace")  # LookupError, too, for `rot13`, `zip` and other codecs that give no text
    except LookupError:
        return ""
    return name
