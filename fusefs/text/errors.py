"""What a text can be told: that it is no value, or that it is not one yet."""

from __future__ import annotations

from fusefs.text.jsontext import escape_controls


class Refused(ValueError):  # noqa: N818 - a text's fate, as the users of this layer put it
    """The text is no value of the type.

    `reason` is one line that names the field where there is one, and `at` the character position
    in the text (0 when it is not known).
    """

    def __init__(self, reason: str, at: int = 0) -> None:
        self.reason = escape_controls(reason)
        self.at = at
        super().__init__(self.reason)


class Incomplete(ValueError):  # noqa: N818 - likewise
    """The text is fine as far as it goes, but ends too early; `reason` says within what."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


def refusal(path: str, message: str, at: int) -> Refused:
    """`message` about the field at `path`, which is empty for the value as a whole."""
    return Refused(f"{path}: {message}" if path else message, at)


def clip(text: str) -> str:
    """`text` for use in a reason: at most some 40 characters of it."""
    return text if len(text) <= 40 else text[:37] + "..."
