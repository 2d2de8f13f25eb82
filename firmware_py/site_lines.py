"""On which line of a TOML text each key stands.

tomllib does not say. This is no second parser: the text has already been accepted by
the first one, so strings, comments and brackets only have to be skipped correctly.
Bare keys and headers are understood; what is quoted gets no line, and what is
inside an inline table or an array counts as where that begins. A wrong line would be
worse than none.
"""

from __future__ import annotations

import re
from typing import Final

KeyPath = tuple[str | int, ...]  # ("rack", 2, "device", 0, "url")

_DOTTED: Final = r"[A-Za-z0-9_-]+(?:[ \t]*\.[ \t]*[A-Za-z0-9_-]+){0,7}"  # deeper: no site file
_ARRAY_HEADER: Final = re.compile(rf"\[\[[ \t]*({_DOTTED})[ \t]*\]\]")
_HEADER: Final = re.compile(rf"\[[ \t]*({_DOTTED})[ \t]*\]")
_KEY: Final = re.compile(rf"({_DOTTED})[ \t]*=")
_BLANK: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_TOKEN: Final = re.compile(
    r'"""(?:\\.|[^\\])*?""""{0,2}'
    r"|'''.*?''''{0,2}"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'"
    r"|\#[^\n]*"
    r"|[\[\]{}\n]"
    r"|[^\"'#\[\]{}\n]+",
    re.DOTALL,
)


def lines_of(text: str) -> dict[KeyPath, int]:
    """The line (from 1) of every key and table of a valid TOML text that is understood."""
    lines: dict[KeyPath, int] = {}
    counts: dict[KeyPath, int] = {}  # elements so far of each [[array of tables]]
    table: KeyPath | None = ()  # None: a header that is not understood; its keys get no line
    position, line = 0, 1
    while True:
        blank = _BLANK.match(text, position)
        assert blank is not None, "a pattern that may be empty always matches"
        line += blank[0].count("\n")
        position = blank.end()
        if position >= len(text):
            return lines
        if array := _ARRAY_HEADER.match(text, position):
            table = _element(array[1], counts)
            lines[table] = line
        elif header := _HEADER.match(text, position):
            table = _resolved(header[1], counts)
            lines.setdefault(table, line)
        elif text[position] == "[":
            table = None
        elif table is not None and (key := _KEY.match(text, position)):
            lines.setdefault(table + _parts(key[1]), line)
        end = _end_of_statement(text, position)
        line += text.count("\n", position, end)
        position = end


def _end_of_statement(text: str, position: int) -> int:
    """Where the statement at `position` is over: a line's end outside all brackets."""
    depth = 0
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None:  # cannot be in valid TOML; give up on the rest rather than guess
            return len(text)
        position = token.end()
        if token[0] == "\n" and depth == 0:
            return position
        depth += (token[0] in "[{") - (token[0] in "]}")
    return position


def _parts(dotted: str) -> KeyPath:
    return tuple(part.strip() for part in dotted.split("."))


def _resolved(dotted: str, counts: dict[KeyPath, int]) -> KeyPath:
    """The path of a header: an array of tables on the way means its last element."""
    path: KeyPath = ()
    for part in _parts(dotted):
        path = (*path, part)
        if path in counts:
            path = (*path, counts[path] - 1)
    return path


def _element(dotted: str, counts: dict[KeyPath, int]) -> KeyPath:
    """The path of the element that a [[header]] opens."""
    *parents, last = dotted.split(".")
    array = (*(_resolved(".".join(parents), counts) if parents else ()), last.strip())
    index = counts.get(array, 0)
    counts[array] = index + 1
    return (*array, index)
