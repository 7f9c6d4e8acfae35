r"""Text that came from anywhere, made fit for the HTML-like labels of Graphviz, and links.

Graphviz has expat read a label, which takes no character that XML does not have, and then, in text
and in TITLE, resolves its own escapes such as \N, which stands for the name of the node. So a
backslash is written twice. What it writes into an SVG it escapes once more (make_html_label in
lib/common/htmltable.c, strdup_and_subst_obj in lib/common/utils.c).
"""

from __future__ import annotations

import re
from html import escape
from urllib.parse import quote

from fusefs.text.jsontext import escape_controls

# How many characters of a text are drawn; the whole of it is in the tooltip.
LONGEST = 30
# No tooltip is longer: nobody reads on, and names may be as long as a path.
_LONGEST_TOOLTIP = 1000

# Surrogates stand for bytes that are not UTF-8, as in Python's file names; XML has neither those
# nor the last two characters of the Basic Multilingual Plane (Char in XML 1.0, 2.2).
_BYTE = re.compile("[\udc80-\udcff]")
_NO_BYTE = re.compile("[\ud800-\udc7f\udd00-\udfff]")
_NOT_XML = re.compile("[\ud800-\udfff\ufffe\uffff]")


# A backslash; and Graphviz refuses a label in which a text is nothing but this bracket.
_OF_GRAPHVIZ = str.maketrans({"\\": "&#92;&#92;", "]": "&#93;"})


def visible(text: str) -> str:
    r"""`text` with what cannot be shown made visible: \xXX for a byte that is not UTF-8, \uXXXX for
    control characters and what XML has no place for."""
    text = escape_controls(text)
    text = _BYTE.sub(lambda match: f"\\x{ord(match[0]) - 0xDC00:02x}", text)
    return _NOT_XML.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def html(text: str) -> str:
    """`text` as text or as an attribute's value in an HTML-like label. It is never empty, as no
    element may be that has text in it."""
    return escape(visible(text)).translate(_OF_GRAPHVIZ) or " "


def cut(text: str, longest: int = LONGEST) -> str:
    """As much of `text` as is drawn. Of a path that is its end, which tells most."""
    text = visible(text)
    if len(text) <= longest:
        return text
    if "/" in text:
        return "…" + text[1 - longest :]
    return text[: longest - 1] + "…"


def tooltip(*texts: str) -> str:
    """What is shown of something in a tooltip: the texts that are not empty, ready for a label."""
    return html(cut_tooltip(" · ".join(visible(text) for text in texts if text)))


def cut_tooltip(text: str) -> str:
    """As much of a text as a tooltip takes."""
    return text if len(text) <= _LONGEST_TOOLTIP else text[: _LONGEST_TOOLTIP - 1] + "…"


def link(href: str) -> str:
    """`href` as a link to a path, never to another host and never with a scheme: it is made of
    characters that mean nothing to Graphviz, HTML and browsers. Without one, a link to nowhere:
    Graphviz has tooltips for links only."""
    path = quote(_NO_BYTE.sub("?", href), safe="/", errors="surrogateescape")
    return re.sub("^//+", "/", path) or "#"
