"""From the text of a site file to its tables, with every fault in one go.

msgspec stops at the first value that does not fit. An operator at night wants all of
them, so the values are walked here over the same types: what fits is converted, what
does not becomes a fault and `UNSET` (or the default, where there is one), and the
walk goes on. Nothing is coerced: true is not 1, "502" is not a port, 1000.0 is not
whole watts. What the design knows and this version does not do is told apart from a
word that means nothing.

Pure: text in, tables and faults out. What a key may be stands in `site_types`.
"""

from __future__ import annotations

import difflib
import functools
import json
import math
import re
import tomllib
import typing
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from typing import Any, Final

import msgspec
from msgspec import NODEFAULT, UNSET, UnsetType, inspect

from firmware_py.errors import Fault
from firmware_py.site_keys import NAME_PATTERN, CapTable, MqttTable, RackTable, SiteTable
from firmware_py.site_lines import KeyPath, lines_of
from firmware_py.site_types import Market

FAULTS_MAX = 200  # more help nobody; the rest is counted
KNOWN_SHOWN = 16  # all keys of a table; not all points of a device

# Keys and values of the design that this version does not have: the remedy for each,
# and the key that such a one stands in for (it is then not reported missing as well).
_NO_SUPPLY = "leave the table out; the caps hold as they are written"
_KEYS_NOT_YET: Final[dict[tuple[type, str], tuple[str, str | None]]] = {
    (SiteTable, "supply"): (_NO_SUPPLY, None),
    (SiteTable, "feed"): (_NO_SUPPLY, None),
    (SiteTable, "source"): (_NO_SUPPLY, None),
    (SiteTable, "battery"): (_NO_SUPPLY, None),
    (MqttTable, "discover"): ('name the MQTT server: host = "192.0.2.10"', "host"),
    (CapTable, "partner"): ("leave it out, and give each feed its own racks", None),
    (RackTable, "shares"): ('name one cap: cap = "room"', "cap"),
}
_VALUES_NOT_YET: Final[dict[tuple[type, str], tuple[tuple[object, ...], str]]] = {
    (Market, "mechanism"): (("price-loop", "consensus"), 'write mechanism = "exact"'),
    (Market, "auction"): ((True,), "write auction = false, or leave it out"),
}
_KINDS: Final[tuple[tuple[type | tuple[type, ...], str], ...]] = (
    (bool, "true or false"),  # before int: a bool is one in Python, and none here
    (int, "a whole number"),
    (float, "a number with a point"),
    (str, "a text"),
    (Mapping, "a table"),
    (list, "an array"),
    ((datetime, date, time), "a date or time"),
)


class Faults:
    """The faults found so far in one file, and where its keys stand."""

    def __init__(self, file: str, document: Mapping[str, object], text: str) -> None:
        self._file = file
        self._document = document
        self._lines = lines_of(text)
        self._faults: list[Fault] = []
        self._more = 0

    @property
    def full(self) -> bool:
        """Nothing more will be kept; dear texts need not be made."""
        return len(self._faults) >= FAULTS_MAX

    def add(self, path: KeyPath, text: str) -> None:
        if self.full:
            self._more += 1
            return
        self._faults.append(Fault(self._file, self._key(path), text, self._line(path)))

    def all(self) -> tuple[Fault, ...]:
        """Every fault in the file's order; what has no line comes first."""
        faults = sorted(self._faults, key=lambda fault: fault.line or 0)
        if self._more:
            faults.append(Fault(self._file, "", f"and {self._more} more faults; mend these first"))
        return tuple(faults)

    def _line(self, path: KeyPath) -> int | None:
        """The line of the key, else of the nearest thing around it."""
        for length in range(len(path), 0, -1):
            line = self._lines.get(path[:length])
            if line is not None:
                return line
        return None

    def _key(self, path: KeyPath) -> str:
        """`rack[2] "r3".device[0].url`: a name helps where an index only counts."""
        text = ""
        here: object = self._document
        for step in path:
            if isinstance(step, int):
                here = here[step] if isinstance(here, Sequence) and step < len(here) else None
                name = here.get("name") if isinstance(here, Mapping) else None
                usable = isinstance(name, str) and re.fullmatch(NAME_PATTERN, name)
                text += f'[{step}] "{name}"' if usable else f"[{step}]"
            else:
                here = here.get(step) if isinstance(here, Mapping) else None
                text += ("." if text else "") + _shown_key(step)
        return text


def parse(text: str, file: str) -> Mapping[str, object] | Fault:
    """The file as TOML, or the one fault that keeps it from being TOML."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        where = re.search(r"\(at line (\d+), column \d+\)", str(error))
        return Fault(
            file,
            "",
            f"not TOML: {str(error)[:200]}; mend that line first, the rest is checked then",
            int(where[1]) if where else None,
        )
    except RecursionError:
        return Fault(file, "", "not TOML that can be read: nested too deeply; flatten it")
    except ValueError:  # an int of thousands of digits: tomllib lets Python's own error through
        return Fault(file, "", "not TOML that can be read: a number has too many digits")


def read_site(document: Mapping[str, object], faults: Faults) -> SiteTable:
    """The document as tables; whatever does not fit is in `faults` and UNSET here."""
    info = inspect.type_info(SiteTable)
    assert isinstance(info, inspect.StructType)
    table = _table(info, document, (), faults)
    assert isinstance(table, SiteTable)
    return table


def nearest(word: str, known: Sequence[str]) -> list[str]:
    """The one of `known` that was probably meant, or nothing."""
    return difflib.get_close_matches(word[:64], known, n=1)


def unknown(word: str, known: Sequence[str]) -> str:
    """The remedy for a word that is none of `known`: the nearest, or all of them."""
    near = nearest(word, known)
    if near:
        return f"did you mean {near[0]}?"
    more = f" and {len(known) - KNOWN_SHOWN} more" if len(known) > KNOWN_SHOWN else ""
    return "known here: " + (", ".join(known[:KNOWN_SHOWN]) or "none") + more


def quoted(text: str) -> str:
    """A text of the file for a message: quoted, short, on one line."""
    short = text if len(text) <= 64 else text[:64] + "…"
    return json.dumps(short, ensure_ascii=not short.isprintable())


# --- The walk -----------------------------------------------------------------------


def _table(
    info: inspect.StructType, value: Mapping[str, object], path: KeyPath, faults: Faults
) -> object:
    known = {each.encode_name: each for each in info.fields}
    stood_in = _refuse_other_keys(info.cls, tuple(known), value, path, faults)
    fields: dict[str, object] = {}
    for key, each in known.items():
        here = (*path, key)
        if key not in value:
            if each.required and key not in stood_in:
                faults.add(here, f"missing; {_how_to_add(key, each.type)}")
        elif _is_not_yet(info.cls, key, value[key]):
            faults.add(here, f"not supported by this version; {_VALUES_NOT_YET[info.cls, key][1]}")
        else:
            fields[each.name] = _value(each.type, value[key], here, faults)
        wrong = fields.get(each.name) is UNSET and each.name in _may_be_unset(info.cls)
        if fields.get(each.name, UNSET) is UNSET and not wrong:
            fields[each.name] = _default(each)
    return info.cls(**fields)


@functools.cache
def _may_be_unset(cls: type) -> frozenset[str]:
    """The fields whose rules tell "wrong" from "left out"; msgspec's inspection does not."""
    hints = typing.get_type_hints(cls)
    return frozenset(name for name, hint in hints.items() if UnsetType in typing.get_args(hint))


def _default(each: inspect.Field) -> object:
    if each.default_factory is not NODEFAULT:
        return each.default_factory()
    return UNSET if each.default is NODEFAULT else each.default


def _refuse_other_keys(
    cls: type, known: tuple[str, ...], value: Mapping[str, object], path: KeyPath, faults: Faults
) -> set[str | None]:
    """Report keys that are not `known`; the keys that were meant by them."""
    stood_in: set[str | None] = set()
    for key in value:
        if key in known:
            continue
        here = (*path, key)
        if (cls, key) in _KEYS_NOT_YET:
            remedy, instead_of = _KEYS_NOT_YET[cls, key]
            stood_in.add(instead_of)
            faults.add(here, f"not supported by this version; {remedy}")
        elif faults.full:
            faults.add(here, "unknown key")
        else:
            stood_in.update(nearest(key, known))
            faults.add(here, f"unknown key; {unknown(key, known)}")
    return stood_in


def _is_not_yet(cls: type, key: str, value: object) -> bool:
    values, _ = _VALUES_NOT_YET.get((cls, key), ((), ""))
    return any(type(value) is type(each) and value == each for each in values)


def _value(info: inspect.Type, value: object, path: KeyPath, faults: Faults) -> object:
    """`value` as `info` wants it, or UNSET and a fault."""
    info = _bare(info)
    match info:
        case inspect.StructType():
            if isinstance(value, Mapping):
                return _table(info, value, path, faults)
            faults.add(path, _wrong_kind("a table", value))
            return UNSET
        case inspect.VarTupleType():
            return _array(info, value, path, faults)
        case inspect.LiteralType():
            wrong = _literal_fault(info, value)
        case inspect.BoolType():
            wrong = None if isinstance(value, bool) else _wrong_kind("true or false", value)
        case inspect.IntType() | inspect.FloatType():
            wrong = _number_fault(info, value)
        case inspect.StrType():
            wrong = _text_fault(info, value)
        case _:
            raise AssertionError(f"no rule for {info}")
    if wrong is not None:
        faults.add(path, wrong)
        return UNSET
    return float(value) if isinstance(info, inspect.FloatType) else value  # type: ignore[arg-type]


def _array(info: inspect.VarTupleType, value: object, path: KeyPath, faults: Faults) -> object:
    if not isinstance(value, list):
        tables = isinstance(_bare(info.item_type), inspect.StructType)
        remedy = f"; write [[{path[-1]}]]" if tables and isinstance(value, Mapping) else ""
        faults.add(path, _wrong_kind("an array", value) + remedy)
        return UNSET
    if info.min_length is not None and len(value) < info.min_length:
        faults.add(path, "empty; give at least one")
    if info.max_length is not None and len(value) > info.max_length:
        faults.add(path, f"{len(value)} of them; at most {info.max_length} are supported")
        value = value[: info.max_length]
    items = (
        _item(info.item_type, each, (*path, index), faults) for index, each in enumerate(value)
    )
    return tuple(item for item in items if item is not UNSET)


def _item(info: inspect.Type, value: object, path: KeyPath, faults: Faults) -> object:
    """An element; a broken table stays in its place with everything unset."""
    item = _value(info, value, path, faults)
    bare = _bare(info)
    if item is UNSET and isinstance(bare, inspect.StructType):
        return bare.cls(**{each.name: _default(each) for each in bare.fields})
    return item


def _bare(info: inspect.Type) -> inspect.Type:
    """Without description, and without "or None": TOML has no null."""
    if isinstance(info, inspect.Metadata):
        return _bare(info.type)
    if isinstance(info, inspect.UnionType):
        return _bare(next(t for t in info.types if not isinstance(t, inspect.NoneType)))
    return info


# --- What is wrong with a value -----------------------------------------------------


def _literal_fault(info: inspect.LiteralType, value: object) -> str | None:
    if any(type(value) is type(each) and value == each for each in info.values):
        return None
    known = tuple(str(each) for each in info.values)
    if isinstance(value, str):
        return f"{quoted(value)} is not known; {unknown(value, known)}"
    if type(value) is int and isinstance(info.values[0], int):
        return f"{_shown_number(value)} is not known; known here: {', '.join(known)}"
    return f"is {_kind(value)}; write one of {', '.join(known)}"


def _number_fault(info: inspect.IntType | inspect.FloatType, value: object) -> str | None:
    whole = isinstance(info, inspect.IntType)
    wanted = "a whole number" if whole else "a number"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _wrong_kind(wanted, value)
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value} is no quantity; {_range(info)}"
    if whole and isinstance(value, float):
        return f"{value} is not {wanted}; {_range(info)}"
    inside = (
        (info.gt is None or value > info.gt)
        and (info.ge is None or value >= info.ge)
        and (info.lt is None or value < info.lt)
        and (info.le is None or value <= info.le)
    )
    return None if inside else f"{_shown_number(value)} is out of range; {_range(info)}"


def _range(info: inspect.IntType | inspect.FloatType) -> str:
    kind = "a whole number" if isinstance(info, inspect.IntType) else "a number"
    low = f"above {info.gt}" if info.gt is not None else f"from {info.ge}"
    high = f"below {info.lt}" if info.lt is not None else f"up to {info.le}"
    return f"give {kind} {low} {high}"


def _text_fault(info: inspect.StrType, value: object) -> str | None:
    if not isinstance(value, str):
        return _wrong_kind("a text", value)
    if info.pattern is not None and not re.fullmatch(info.pattern, value):
        return f"{quoted(value)} cannot be a name; use 1 to 64 letters, digits, - _ or ."
    if info.min_length is not None and len(value) < info.min_length:
        return "is empty; write something, or leave the key out"
    if info.max_length is not None and len(value) > info.max_length:
        return f"{len(value)} characters are too long; use at most {info.max_length}"
    if not value.isprintable():
        return "has a control character in it; write it on one line, without tabs"
    return None


def _wrong_kind(wanted: str, value: object) -> str:
    return f"is {_kind(value)}; write {wanted}"


def _kind(value: object) -> str:
    return next((name for cls, name in _KINDS if isinstance(value, cls)), "something else")


def _shown_number(value: float) -> str:
    # Python refuses to print ints of more than 4300 digits, and nobody reads twenty.
    return str(value) if abs(value) < 10**15 else "a number that large"


def _shown_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", key) else quoted(key)


def _how_to_add(key: str, info: inspect.Type) -> str:
    examples: list[Any] = []
    if isinstance(info, inspect.Metadata):
        examples = (info.extra_json_schema or {}).get("examples", [])
    if examples:
        return f"add for example {key} = {msgspec.json.encode(examples[0]).decode()}"
    bare = _bare(info)
    if isinstance(bare, inspect.VarTupleType):
        return f"add at least one [[{key}]]"
    return f"add [{key}]" if isinstance(bare, inspect.StructType) else f"add {key} ="
