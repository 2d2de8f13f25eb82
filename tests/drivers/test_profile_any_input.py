"""Any text whatever is a profile or a list of faults; what is accepted never fails later."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from drivers.codec import decode, encode, registers_of
from drivers.counter import Counter
from drivers.errors import ProfileError
from drivers.plan import plan_registers
from drivers.points import CommandSpec, Derived, Point, Source
from drivers.profile import SHIPPED, Profile, check_profile, profile_names
from drivers.reading import Absence, Answer, Missing, NoAnswer, Place, Raw, Reading
from drivers.resolve import Member, columns_of, resolve, resolve_command, resolve_source
from drivers.rows import parsed

EXAMPLES = 100
SLOWEST = timedelta(seconds=5)
unhurried = settings(
    max_examples=EXAMPLES,
    deadline=SLOWEST,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

# ── profiles, whole and changed ───────────────────────────────────────────────────


def few_rows(table: dict[str, Any]) -> dict[str, Any]:
    """Enough of a long profile: its rows are alike."""
    short = {key: table[key][:3] for key in ("point", "command") if key in table}
    return table | short


WHOLE = [
    few_rows(parsed((SHIPPED / f"{name}.toml").read_text(encoding="utf-8"), name))
    for name in profile_names()
]
KEYS = [
    "schema", "name", "protocol", "product", "source", "match", "members", "identity",
    "limits", "point", "command", "oid", "table", "address", "model", "offset", "type", "row",
    "item", "suffix", "digits", "factor", "scale_factor", "multiply_by", "divide_by",
    "only_if", "unless", "valid_if", "enum", "absent", "not_now", "scale", "range", "each",
    "sum", "product", "over", "counter_bits", "length", "four_quadrant", "estimate",
    "otherwise", "first", "then", "confirm", "why", "unit", "word_order", "byte_order",
    "zero_based", "at", "as", "where", "named_by", "column", "columns", "is", "words", "count",
    "stride", "present", "under", "one_of", "models", "value", "after", "within_ms",
    "registers_per_read_max",
]  # fmt: skip

scalars = st.one_of(
    st.sampled_from([0, -1, 1, 2, 7, 255, 65535, 65536, 70000, 2**31, 2**32, 2**63, 2**64 - 1]),
    st.sampled_from([10**30, 10**400, 0.1, 1e-300, 1e300, math.nan, math.inf, True, False]),
    st.sampled_from(["", "x", "none", "{member}", "{row}", "{n}", "{outlet}", "{}", "{{}}"]),
    st.sampled_from(["1.3", "1.3.{n}", "1.3.{row}", "1.3.9.{member}", "1.99.1", "1.3.4294967296"]),
    st.sampled_from(["input", "holding", "coil", "discrete", "bit", "text", "decimal", "little"]),
    st.sampled_from(["int16", "uint16", "int32", "uint64", "float32", "float64", "snmp", "modbus"]),
    st.sampled_from(["input.realpower", "input.L{phase}.realpower", "outlet.{outlet}.status"]),
    st.integers(-(2**65), 2**65),
    st.floats(),
    st.text(max_size=8),
)  # fmt: skip
places = st.sampled_from(
    [
        {"oid": "1.3.6.1.4.1.9", "value": 1},
        {"table": "holding", "address": 9, "is": [1, "{n}"]},
        {"oid": "1.3.6.1.4.1.9.{n}", "is": [1, "{row}"]},
        {"address": 9, "type": "float64"},
        {"model": 203, "offset": 9, "value": 70000, "type": "int16"},
        {"n": {"first": 0, "count": 3, "stride": 40}},
        {"a": {"count": 256}, "b": {"count": 256}, "c": {"count": 64}},
        {"n": {"words": ["a b", "c.d", "{n}"]}},
        {"1.3.6.1.4.1.9.3": "{member}"},
    ]
)
values = st.recursive(
    scalars | places,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


def paths(inside: Any, at: tuple[Any, ...] = ()) -> Iterable[tuple[Any, ...]]:
    inner = inside.items() if isinstance(inside, dict) else enumerate(inside)
    for key, value in inner:
        yield (*at, key)
        if isinstance(value, (dict, list)):
            yield from paths(value, (*at, key))


def copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: copied(inner) for key, inner in value.items()}
    return [copied(inner) for inner in value] if isinstance(value, list) else value


@st.composite
def changed_profiles(draw: st.DrawFn) -> dict[str, Any]:
    profile: dict[str, Any] = copied(draw(st.sampled_from(WHOLE)))
    for _ in range(draw(st.integers(0, 3))):
        known = list(paths(profile))
        if not known:
            break
        *above, key = draw(st.sampled_from(known))
        table: Any = profile
        for step in above:
            table = table[step]
        what = draw(st.sampled_from(["replace", "drop", "add", "nest", "double"]))
        if what == "replace":
            table[key] = copied(draw(values))
        elif what == "drop":
            del table[key]
        elif what == "nest":
            table[key] = {draw(st.sampled_from(KEYS)): table[key]}
        elif what == "double" and isinstance(table, list):
            table.append(copied(table[key]))
        elif isinstance(table, dict):
            table[draw(st.sampled_from(KEYS))] = copied(draw(values))
    return profile


def toml_of(value: Any) -> str:
    """A value as TOML writes it, tables in one line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml_of(str(k))} = {toml_of(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_of, value)) + "]"
    if isinstance(value, str):
        escaped = "".join(
            c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in value
        )
        return f'"{escaped}"'
    return str(value)


def text_of(profile: Mapping[str, Any]) -> str:
    lines = []
    for key, value in profile.items():
        is_rows = isinstance(value, list) and all(isinstance(row, dict) for row in value)
        if is_rows and key in ("point", "command") and value:
            for row in value:
                lines.append(f"[[{key}]]")
                lines += [f"{toml_of(k)} = {toml_of(v)}" for k, v in row.items()]
        else:
            lines.insert(0, f"{toml_of(key)} = {toml_of(value)}")
    return "\n".join(lines)


# ── what a device may say ─────────────────────────────────────────────────────────

RAWS = st.one_of(
    st.sampled_from([0, 1, 2, 0x7FC0, 0x7FFF, 0x8000, 0xFFFF, 0x0001, 0x7F80]),
    st.integers(0, 0xFFFF),
    st.integers(-(2**63), 2**64 - 1),
    st.binary(max_size=8),
    st.sampled_from([b"", b"1", b"1.5 W", b"on", b"1,2,3", b"9" * 15, b"\xff", "1.3.6"]),
    st.sampled_from([NoAnswer(absence, "") for absence in Absence]),
)
MEMBER = Member("1", "1")
MODELS = {1: 2, **dict.fromkeys(range(2, 1000), 50_000)}


def told(raw: Raw | NoAnswer) -> Answer:
    return Answer(raw, 1.0, 2.0)


class AnyDevice:
    """One that says anything, anywhere."""

    def __init__(self, data: st.DataObject) -> None:
        self._some: list[Raw | NoAnswer] = data.draw(st.lists(RAWS, min_size=3, max_size=12))
        self._said = 0

    def answers(self, source: Source) -> dict[Place, Answer]:
        return {place: told(self._next()) for place in source.places}

    def column(self, meant: Iterable[int | str]) -> dict[str, Raw | NoAnswer]:
        rows: dict[str, Raw | NoAnswer] = {}
        for index, value in enumerate(list(meant)[:3], start=1):
            rows[f"{index}"] = value.encode() if isinstance(value, str) else value
        return rows | {"1.77": self._next()}

    def _next(self) -> Raw | NoAnswer:
        self._said += 1
        return self._some[self._said % len(self._some)]


def use(profile: Profile, device: AnyDevice) -> None:
    """Everything that is done with a profile: filled in, planned, read, commanded."""
    lookups: dict[str, list[int | str]] = {}
    items: list[Point | CommandSpec] = [*profile.points, *profile.commands]
    for item in items:
        for source in sources_of(item):
            for look in source.row:
                lookups.setdefault(look.column.replace("{member}", "1"), []).append(look.value)
    member = None if profile.members is None else MEMBER
    assert set(columns_of(items, member)) == set(lookups)
    columns = {column: device.column(meant) for column, meant in lookups.items()}
    found: dict[str, Reading | Missing] = {}
    for point in profile.points:
        filled = resolve(point, member, columns, MODELS)
        check_places(profile, sources_of(filled))
        answers: dict[Place, Answer] = {}
        for source in sources_of(filled):
            answers |= device.answers(source)
        bits = sources_of(filled)[0].counter_bits if isinstance(filled.sources[0], Source) else 0
        rounds = Counter(bits, 3).then(1).rounds if bits else 0
        found[point.name] = sound(filled, decode(filled, answers, found, rounds))
    for point in profile.points:
        if any(isinstance(source, Derived) for source in point.sources):
            sound(point, decode(point, {}, found))
    for command in profile.commands:
        give(profile, resolve_command(command, member, columns, MODELS), device)
    for text in (*profile.model_from, *profile.serial_from):
        source = resolve_source(text.source, member, columns, MODELS)
        check_places(profile, [source])
        decode(Point("identity.text", "", 0, 0, (source,)), device.answers(source))


def sources_of(item: Point | CommandSpec) -> list[Source]:
    if isinstance(item, Point):
        return [source for source in item.sources if isinstance(source, Source)]
    return [*item.targets, *(write.target for write in (*item.before, *item.after))]


def check_places(profile: Profile, sources: list[Source]) -> None:
    there = [source for source in sources if source.nothing is None]
    if profile.protocol == "snmp":
        for place in (place for source in there for place in source.places):
            arcs = [int(arc) for arc in str(place).split(".")]
            assert arcs[0] <= 2 and (arcs[0] == 2 or arcs[1] <= 39)
            assert all(0 <= arc < 2**32 for arc in arcs)
        return
    limits = profile.limits
    for span in plan_registers(there, limits.registers_per_read_max, limits.registers_gap_max):
        assert span.address >= 0 and span.address + span.count <= 65536
        assert 1 <= span.count <= limits.registers_per_read_max


def sound(point: Point, answer: Reading | Missing) -> Reading | Missing:
    if isinstance(answer, Reading) and isinstance(answer.value, float):
        assert math.isfinite(answer.value)
    return answer


def give(profile: Profile, command: CommandSpec, device: AnyDevice) -> None:
    values: list[float | str] = [*command.words, command.low, command.high, 0.0]
    for value in values:
        beside = [s for s in command.targets if s.nothing is None]
        answers: dict[Place, Answer] = {}
        for source in beside:
            answers |= device.answers(source)
            if source.scale_factor is not None:
                answers[(source.table, source.scale_factor)] = told(0x10000 - 10)
        planned = encode(command, value, answers)
        writes = [] if isinstance(planned, NoAnswer) else [planned]
        for target, raw in [
            *writes,
            *((w.target, w.raw) for w in (*command.before, *command.after)),
        ]:
            assert target.table not in ("input", "discrete")
            if profile.protocol == "modbus" and target.type != "bit":
                assert len(registers_of(target, raw)) == target.registers
            elif profile.protocol == "snmp":
                struct.pack(">Q" if target.type == "uint64" else ">q", int(raw))


# ── the sentences ─────────────────────────────────────────────────────────────────


def outcome(text: str) -> Profile | ProfileError:
    try:
        return check_profile(text, "x.toml")
    except ProfileError as error:
        assert error.faults
        str(error).encode("utf-8")
        return error


@unhurried
@given(changed=changed_profiles(), data=st.data())
def test_a_changed_profile_is_refused_with_its_faults_or_can_be_used_with_any_device(
    changed: dict[str, Any], data: st.DataObject
) -> None:
    profile = outcome(text_of(changed))
    if isinstance(profile, Profile):
        use(profile, AnyDevice(data))


@unhurried
@given(st.binary(max_size=300))
@example(b"\x00")
@example(b"a = 0x" + b"f" * 3000)
def test_any_bytes_are_a_profile_or_its_faults(payload: bytes) -> None:
    outcome(payload.decode("utf-8", "replace"))


@unhurried
@given(st.dictionaries(st.sampled_from(KEYS), values, max_size=8))
def test_any_tables_are_a_profile_or_its_faults(tables: dict[str, Any]) -> None:
    outcome(text_of(tables))


@pytest.mark.parametrize("name", profile_names())
def test_a_shipped_profile_written_anew_is_the_same_profile(name: str) -> None:
    text = (SHIPPED / f"{name}.toml").read_text(encoding="utf-8")
    assert check_profile(text_of(parsed(text, name)), name) == check_profile(text, name)
