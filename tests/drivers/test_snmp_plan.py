"""What is asked of an SNMP agent, and what its answers prove. Pure."""

from __future__ import annotations

import pytest

from drivers.reading import Absence, NoAnswer
from drivers.snmp_bearing import Limit
from drivers.snmp_home import END_OF_MIB, NO_SUCH, Told
from drivers.snmp_plan import (
    Below,
    Column,
    Get,
    Request,
    Rows,
    Sweep,
    Temper,
    Walk,
    plan_fetch,
    predecessor,
)

TEMPER = Temper(timeout_s=1.0, read_s_max=10.0, oids_per_get_max=20, repetitions_max=25)


def cells(column: str, rows: range) -> list[str]:
    return [f"{column}.{row}" for row in rows]


def reasons(said: dict[str, object]) -> dict[str, object]:
    """Values, and of what is missing the reason."""
    return {k: v.absence if isinstance(v, NoAnswer) else v for k, v in said.items()}


# ── planning ──────────────────────────────────────────────────────────────────────


def test_columns_with_the_same_rows_are_walked_side_by_side() -> None:
    oids = [cell for column in ("1.3.5", "1.3.10", "1.3.7") for cell in cells(column, range(1, 49))]
    first, second = plan_fetch(oids, TEMPER, version=2, columns_max=60)
    assert isinstance(first, Walk)
    assert isinstance(second, Walk)
    assert [column.oid for column in first.columns] == ["1.3.5", "1.3.7"]
    assert [column.oid for column in second.columns] == ["1.3.10"]
    assert first.request(25) == Request("bulk", ("1.3.5.0", "1.3.7.0"), 25)


def test_an_answer_holds_no_more_than_sixty_varbinds() -> None:
    oids = [f"1.3.{column}.{row}" for column in range(1, 31) for row in range(1, 49)]
    walks = plan_fetch(oids, TEMPER, version=2, columns_max=60)
    for walk in walks:
        request = walk.request(25)
        assert len(request.oids) * request.repetitions <= 60


def test_a_home_of_one_column_gets_one_column_at_a_time() -> None:
    oids = cells("1.3.5", range(1, 49)) + cells("1.3.7", range(1, 49))
    walks = plan_fetch(oids, TEMPER, version=2, columns_max=1)
    assert [walk.request(25).oids for walk in walks] == [("1.3.5.0",), ("1.3.7.0",)]


@pytest.mark.parametrize(
    ("oids", "why"),
    [
        (cells("1.3.5", range(1, 4)), "three rows are no column"),
        (cells("1.3.5", range(1, 9)), "one GET is no more than one GETBULK"),
        ([f"1.3.5.{row}" for row in range(0, 2400, 100)], "the rows are far apart"),
    ],
)
def test_what_a_walk_would_not_make_cheaper_is_asked_by_name(oids: list[str], why: str) -> None:
    assert plan_fetch(oids, TEMPER, version=2, columns_max=60) == [Get(tuple(oids))], why


def test_where_getbulk_is_forbidden_everything_is_asked_by_name() -> None:
    oids = cells("1.3.5", range(1, 49))
    temper = Temper(1.0, 10.0, oids_per_get_max=20, repetitions_max=0)
    assert plan_fetch(oids, temper, version=2, columns_max=60) == [Get(tuple(oids))]


def test_explicit_objects_come_before_tables() -> None:
    oids = [*cells("1.3.5", range(1, 49)), "1.3.1.0"]
    jobs = plan_fetch(oids, TEMPER, version=2, columns_max=60)
    assert [type(job) for job in jobs] == [Get, Walk]


def test_version_1_asks_rows_from_their_predecessors() -> None:
    oids = ["1.3.1.0", *cells("1.3.5", range(4))]
    get, rows = plan_fetch(oids, TEMPER, version=1, columns_max=60)
    assert get.request(0) == Request("get", ("1.3.1.0",))
    assert rows.request(0) == Request("next", ("1.3.5", "1.3.5.0", "1.3.5.1", "1.3.5.2"))


@pytest.mark.parametrize(("oid", "before"), [("1.3.5.3", "1.3.5.2"), ("1.3.5.0", "1.3.5")])
def test_the_predecessor_of_a_row(oid: str, before: str) -> None:
    assert predecessor(oid) == before


# ── GETBULK ───────────────────────────────────────────────────────────────────────

WALK = Walk((Column("1.3.5", (1, 2, 3, 4), (0,)), Column("1.3.7", (1, 2, 3, 4), (0,))))


def test_a_walk_goes_on_from_the_last_row_of_a_short_answer() -> None:
    told = Told(0, 0, [("1.3.5.1", 51), ("1.3.7.1", 71), ("1.3.5.2", 52)])
    heard = WALK.hear(told)
    assert heard.said == {"1.3.5.1": 51, "1.3.7.1": 71, "1.3.5.2": 52}
    (walk,) = heard.jobs
    assert walk.request(25) == Request("bulk", ("1.3.5.2", "1.3.7.1"), 3)
    assert walk.oids == ("1.3.5.3", "1.3.5.4", "1.3.7.2", "1.3.7.3", "1.3.7.4")


def test_a_row_that_a_walk_has_passed_is_absent() -> None:
    heard = WALK.hear(Told(0, 0, [("1.3.5.3", 53), ("1.3.7.2.9", 729)]))
    assert reasons(heard.said) == {
        "1.3.5.1": Absence.ABSENT, "1.3.5.2": Absence.ABSENT, "1.3.5.3": 53,
        "1.3.7.1": Absence.ABSENT, "1.3.7.2": Absence.ABSENT,
    }  # fmt: skip


@pytest.mark.parametrize("beyond", [("1.3.6.1", 61), ("1.3.5.0", END_OF_MIB), ("1.3.7.1", 71)])
def test_beyond_a_column_nothing_of_it_is_left(beyond: tuple[str, object]) -> None:
    walk = Walk((Column("1.3.5", (1, 2), (0,)),))
    heard = walk.hear(Told(0, 0, [beyond]))  # type: ignore[list-item]
    assert reasons(heard.said) == {"1.3.5.1": Absence.ABSENT, "1.3.5.2": Absence.ABSENT}
    assert heard.jobs == []


@pytest.mark.parametrize(
    "varbinds",
    [
        [("1.3.5.1", 51), ("1.3.7.1", 71), ("1.3.5.1", 51), ("1.3.7.2", 72)],
        [("1.3.7.1", 71), ("1.3.5.1", 51)],
        [("1.3.5.0", 50), ("1.3.7.1", 71)],
        [("1.3.7.2", 72), ("1.3.5.2", 52), ("1.3.7.1", 71), ("1.3.5.1", 51)],
        [("1.3.4.9", 49), ("1.3.7.1", 71)],
    ],
)
def test_an_answer_that_does_not_increase_is_not_believed(varbinds: list[tuple[str, int]]) -> None:
    heard = WALK.hear(Told(0, 0, varbinds))
    assert set(reasons(heard.said).values()) == {Absence.TYPE}
    assert set(heard.said) == set(WALK.oids)
    assert heard.jobs == ()


@pytest.mark.parametrize("told", [Told(1, 0, []), Told(0, 0, [])])
def test_too_big_and_empty_answers_are_too_much(told: Told) -> None:
    heard = WALK.hear(told)
    assert (heard.said, heard.jobs, heard.too_much) == ({}, [WALK], True)


def test_a_refused_getbulk_is_asked_again_by_name() -> None:
    assert WALK.hear(Told(5, 1, [])).jobs == [Get(WALK.oids)]


# ── GET ───────────────────────────────────────────────────────────────────────────


def test_a_get_takes_values_by_their_names() -> None:
    told = Told(0, 0, [("1.3.2.0", 2), ("1.3.1.0", NO_SUCH), ("1.3.9.9", 7)])
    assert reasons(Get(("1.3.1.0", "1.3.2.0", "1.3.3.0")).hear(told).said) == {
        "1.3.1.0": Absence.ABSENT, "1.3.2.0": 2, "1.3.3.0": Absence.TYPE,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("status", "reason"), [(2, Absence.ABSENT), (5, Absence.REFUSED), (99, Absence.REFUSED)]
)
def test_the_object_that_fails_a_request_is_taken_out(status: int, reason: Absence) -> None:
    heard = Get(("1.3.1.0", "1.3.2.0", "1.3.3.0")).hear(Told(status, 2, []))
    assert reasons(heard.said) == {"1.3.2.0": reason}
    assert heard.jobs == [Get(("1.3.1.0", "1.3.3.0"))]


def test_an_error_without_an_index_is_looked_for_by_halves() -> None:
    heard = Get(("1.3.1.0", "1.3.2.0", "1.3.3.0")).hear(Told(5, 0, []))
    assert heard.jobs == [Get(("1.3.1.0", "1.3.2.0")), Get(("1.3.3.0",))]
    assert reasons(Get(("1.3.3.0",)).hear(Told(5, 0, [])).said) == {"1.3.3.0": Absence.REFUSED}


def test_who_may_not_read_is_not_asked_object_by_object() -> None:
    heard = Get(("1.3.1.0", "1.3.2.0")).hear(Told(16, 0, []))
    assert set(reasons(heard.said).values()) == {Absence.REFUSED}
    assert heard.jobs == ()


# ── GETNEXT ───────────────────────────────────────────────────────────────────────


def test_version_1_tells_rows_from_what_is_beyond_them() -> None:
    rows = Rows(("1.3.5.1", "1.3.5.2", "1.3.5.3"))
    heard = rows.hear(Told(0, 0, [("1.3.5.1", 51), ("1.3.5.3", 53), ("1.3.5.2.7", 527)]))
    assert reasons(heard.said) == {"1.3.5.1": 51, "1.3.5.2": Absence.ABSENT}
    assert heard.jobs == [Get(("1.3.5.3",))]  # 1.3.5.2.7 stands before it: it may be there


def test_version_1_at_the_end_of_the_mib() -> None:
    rows = Rows(("1.3.5.1", "1.3.5.2"))
    heard = rows.hear(Told(2, 2, [("1.3.5.0", NO_SUCH), ("1.3.5.1", NO_SUCH)]))
    assert reasons(heard.said) == {"1.3.5.2": Absence.ABSENT}
    assert heard.jobs == [Rows(("1.3.5.1",))]


@pytest.mark.parametrize(
    "varbinds",
    [
        [("1.3.5.2", 52), ("1.3.5.1", 51)],
        [("1.3.5.0", 50), ("1.3.5.2", 52)],
        [("1.3.5.1", 51)],
    ],
)
def test_what_does_not_follow_what_was_asked_is_not_believed(
    varbinds: list[tuple[str, int]],
) -> None:
    heard = Rows(("1.3.5.1", "1.3.5.2")).hear(Told(0, 0, varbinds))
    assert set(reasons(heard.said).values()) == {Absence.TYPE}


def test_what_is_below_a_prefix() -> None:
    below = Below(("1.3.5", "1.3.6", "1.3.7", "1.3.8"))
    told = Told(0, 0, [("1.3.5.0", 5), ("1.3.61.0", 6), ("1.3.8.1", 8), ("1.3.8", END_OF_MIB)])
    assert reasons(below.hear(told).said) == {
        "1.3.5": ("1.3.5.0", 5), "1.3.6": Absence.ABSENT,
        "1.3.7": Absence.ABSENT, "1.3.8": Absence.ABSENT,
    }  # fmt: skip


# ── everything below an object ────────────────────────────────────────────────────


def test_a_sweep_ends_where_its_column_ends() -> None:
    sweep = Sweep("1.3.5", "1.3.5", 100)
    heard = sweep.hear(Told(0, 0, [("1.3.5.1", 51), ("1.3.5.2.9", 529)]))
    assert heard.said == {"1.3.5.1": 51, "1.3.5.2.9": 529}
    (going,) = heard.jobs
    assert going.request(10) == Request("bulk", ("1.3.5.2.9",), 10)
    ended = going.hear(Told(0, 0, [("1.3.5.3", 53), ("1.3.51.1", 1)]))
    assert (ended.said, ended.jobs, ended.fault) == ({"1.3.5.3": 53}, (), None)


def test_a_sweep_of_a_table_without_end_is_incomplete() -> None:
    heard = Sweep("1.3.5", "1.3.5", 2).hear(Told(0, 0, [("1.3.5.1", 51), ("1.3.5.2", 52)]))
    assert heard.fault is not None
    assert heard.fault.absence is Absence.INCOMPLETE


def test_a_sweep_that_goes_in_circles_stops() -> None:
    heard = Sweep("1.3.5", "1.3.5.2", 9).hear(Told(0, 0, [("1.3.5.1", 51)]))
    assert heard.said == {}
    assert heard.fault is not None
    assert heard.fault.absence is Absence.TYPE


# ── what an agent bears ───────────────────────────────────────────────────────────


def test_what_failed_is_quartered_until_something_is_borne_and_halved_after_that() -> None:
    limit = Limit(floor=0)
    limit.failed(20)
    assert limit.at(20) == 5
    limit.bore(5)
    limit.failed(5)
    assert limit.at(20) == 2
    limit.failed(2)
    limit.failed(1)
    assert limit.at(20) == 0


def test_what_was_borne_is_tried_again_later_and_later() -> None:
    limit = Limit(floor=0)
    limit.bore(20)
    limit.failed(20)
    for _ in range(400):
        assert limit.at(20) == 10
        limit.bore(10)
    assert limit.at(20) == 20
    limit.failed(20)
    for _ in range(1600):
        assert limit.at(20) == 10
        limit.bore(10)
    assert limit.at(20) == 20
