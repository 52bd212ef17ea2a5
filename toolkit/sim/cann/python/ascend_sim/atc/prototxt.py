"""A small reader of protobuf's text format: as much as AIPP configurations use.

Fields ``name: value``, nested messages ``name { ... }`` (also with a colon), comments, strings in either
quote, separators ``,`` and ``;``. Values stay text; who knows the field's type converts.
"""

import re
from typing import NamedTuple, Tuple, Union

_TOKEN = re.compile(
    r"""\s+ | \#[^\n]* | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*') |
    (?P<word>[-+]?[A-Za-z0-9_.][A-Za-z0-9_.+-]*) | (?P<mark>[{}<>:,;])""",
    re.VERBOSE,
)
_CLOSING = {"{": "}", "<": ">"}


class SyntaxProblem(ValueError):
    """The text is not protobuf text format; says the line and what was expected."""


class Scalar(NamedTuple):
    """A value as it stood there; ``quoted`` when it was a string."""

    text: str
    quoted: bool
    line: int


class Message(NamedTuple):
    """A message's fields in their order."""

    fields: Tuple[Tuple[str, Union["Scalar", "Message"]], ...]
    line: int


class _Reader:
    def __init__(self, text: str) -> None:
        self.tokens = []  # type: List[Tuple[str, str, int]]
        position, line = 0, 1
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                raise SyntaxProblem("line {}: unexpected {!r}".format(line, text[position]))
            if match.lastgroup:
                self.tokens.append((match.lastgroup, match.group(), line))
            line += match.group().count("\n")
            position = match.end()
        self.tokens.append(("end", "end of file", line))
        self.index = 0

    def peek(self) -> Tuple[str, str, int]:
        return self.tokens[self.index]

    def take(self) -> Tuple[str, str, int]:
        token = self.tokens[self.index]
        self.index += token[0] != "end"
        return token

    def message(self, closing: str, line: int) -> Message:
        fields = []  # type: List[Tuple[str, Union[Scalar, Message]]]
        while True:
            kind, text, at = self.take()
            if (kind == "end" and not closing) or (kind == "mark" and text == closing):
                return Message(tuple(fields), line)
            if kind == "mark" and text in ",;":
                continue
            if kind != "word" or not re.match(r"^[A-Za-z_]\w*$", text):
                wanted = "a field name or {!r}".format(closing) if closing else "a field name"
                raise SyntaxProblem("line {}: expected {}, found {!r}".format(at, wanted, text))
            fields.append((text, self.value(text)))

    def value(self, name: str) -> Union[Scalar, Message]:
        colon = self.peek()[1] == ":" and self.peek()[0] == "mark"
        if colon:
            self.take()
        kind, text, at = self.take()
        if kind == "mark" and text in _CLOSING:
            return self.message(_CLOSING[text], at)
        if not colon:
            raise SyntaxProblem("line {}: expected ':' after {!r}".format(at, name))
        if kind == "string":
            return Scalar(text[1:-1], True, at)
        if kind == "word":
            return Scalar(text, False, at)
        raise SyntaxProblem("line {}: {!r} has no value".format(at, name))


def parse(text: str) -> Message:
    """Return the outermost message; raises SyntaxProblem."""
    return _Reader(text).message("", 1)
