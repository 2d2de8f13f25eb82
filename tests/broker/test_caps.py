"""What every cap is worth now: the smallest of the file and of what each source said last."""

from __future__ import annotations

import pytest
from protocol_values import cap, cap_set

from broker.caps import SOURCES_KNOWN_MAX, CapBook, fell, path_of
from broker.messages import SOURCES_PER_CAP_MAX, CapValue, CapValues

ROOM = cap("room", 10_000)
ROW = cap("row", 6000, "room")


@pytest.mark.parametrize(
    ("values", "in_force"),
    [
        ({}, (10_000, "site")),
        ({"operator": CapValue(1, 8000)}, (8000, "operator")),
        ({"operator": CapValue(1, 8000), "energy": CapValue(9, 9000)}, (8000, "operator")),
        ({"operator": CapValue(1, 9000), "energy": CapValue(9, 8000)}, (8000, "energy")),
        ({"operator": CapValue(1, 99_000)}, (10_000, "site")),
        ({"operator": CapValue(1, None)}, (10_000, "site")),
        ({"operator": CapValue(2, None), "energy": CapValue(1, 7000)}, (7000, "energy")),
        ({"operator": CapValue(1, 0)}, (0, "operator")),
    ],
)
def test_the_cap_in_force_is_the_smallest_of_the_roster_and_of_every_source(
    values: dict[str, CapValue], in_force: tuple[int, str]
) -> None:  # protocol C1
    assert CapBook([ROOM], {"room": values}).in_force("room", 0.0) == in_force


@pytest.mark.parametrize(
    ("second", "limit_w", "changed"),
    [
        (cap_set(7000, 6), 7000, True),  # newer and lower
        (cap_set(9000, 6), 9000, True),  # newer and higher: the source itself has risen
        (cap_set(None, 6), 10_000, True),  # withdrawn
        (cap_set(8000, 6), 8000, False),  # repeated
        (cap_set(7000, 5), 8000, False),  # the same number again
        (cap_set(9000, 4), 8000, False),  # from before
        (cap_set(7000, 4), 8000, False),  # lower, and from before all the same
    ],
)
def test_of_one_source_the_highest_number_counts(
    second: object, limit_w: int, changed: bool
) -> None:  # protocol C1
    book = CapBook([ROOM], {})
    assert book.hear("room", cap_set(8000, 5), live=True, now=0.0)
    assert book.hear("room", second, live=True, now=1.0) is changed  # type: ignore[arg-type]
    assert book.in_force("room", 1.0)[0] == limit_w


def test_a_repeated_value_keeps_its_newest_number() -> None:  # protocol C1
    book = CapBook([ROOM], {})
    book.hear("room", cap_set(8000, 5), live=True, now=0.0)
    book.hear("room", cap_set(8000, 9), live=True, now=1.0)
    assert book.values() == {"room": {"operator": CapValue(9, 8000)}}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_books_agree_in_whatever_order_they_are_merged(order: tuple[int, int]) -> None:
    books: list[CapValues] = [
        {"room": {"operator": CapValue(7, 9000), "energy": CapValue(3, 8500)}},
        {"room": {"operator": CapValue(8, None), "energy": CapValue(2, 7000)}},
    ]
    book = CapBook([ROOM], {})
    for which in order:
        book.merge(books[which])
    assert book.values() == {"room": {"operator": CapValue(8, None), "energy": CapValue(3, 8500)}}


def test_merging_says_whether_a_value_changed() -> None:
    book = CapBook([ROOM], {"room": {"operator": CapValue(7, 9000)}})
    assert not book.merge({"room": {"operator": CapValue(8, 9000)}})
    assert book.merge({"room": {"operator": CapValue(9, 8000)}})


def test_silence_of_a_source_never_raises_a_cap() -> None:  # protocol C1
    book = CapBook([ROOM], {})
    book.hear("room", cap_set(8000, 1), live=True, now=0.0)
    assert book.in_force("room", 1e6) == (8000, "operator")


FALLBACK = cap("room", 10_000, fallback_w=4000, set_ttl_s=30.0)


@pytest.mark.parametrize(
    ("now", "in_force"),
    [(100.0, (8000, "operator")), (130.0, (8000, "operator")), (130.1, (4000, "fallback"))],
)
def test_a_cap_falls_back_when_no_source_was_heard_for_its_ttl(
    now: float, in_force: tuple[int, str]
) -> None:  # protocol C2
    book = CapBook([FALLBACK], {})
    book.hear("room", cap_set(8000, 1), live=True, now=100.0)
    assert book.in_force("room", now) == in_force


def test_a_fallback_is_a_ceiling_and_not_a_value() -> None:  # protocol C2
    book = CapBook([FALLBACK], {})
    book.hear("room", cap_set(3000, 1), live=True, now=0.0)
    assert book.in_force("room", 1e6)[0] == 3000


def test_who_has_heard_no_source_since_its_start_counts_them_as_silent() -> None:  # protocol C2
    book = CapBook([FALLBACK], {"room": {"operator": CapValue(1, 8000)}})
    assert book.in_force("room", 0.0) == (4000, "fallback")


@pytest.mark.parametrize(
    ("live", "limit_w"),
    [(True, 8000), (False, 4000)],
)
def test_only_a_live_value_ends_the_silence(live: bool, limit_w: int) -> None:  # protocol C2
    book = CapBook([FALLBACK], {})
    book.hear("room", cap_set(8000, 1), live=live, now=0.0)
    assert book.in_force("room", 1.0)[0] == limit_w


def test_a_merged_value_does_not_end_the_silence() -> None:  # protocol C2
    book = CapBook([FALLBACK], {})
    book.merge({"room": {"operator": CapValue(1, 8000)}})
    assert book.in_force("room", 1.0)[0] == 4000


def test_any_one_source_that_speaks_ends_the_silence_even_with_an_unchanged_value() -> None:
    book = CapBook([FALLBACK], {})  # protocol C2
    book.hear("room", cap_set(9000, 1, "energy"), live=True, now=0.0)
    book.hear("room", cap_set(8000, 1), live=True, now=0.0)
    book.hear("room", cap_set(9000, 2, "energy"), live=True, now=25.0)
    assert book.in_force("room", 50.0)[0] == 8000


def test_a_source_of_one_cap_says_nothing_of_another() -> None:
    book = CapBook([ROOM, cap("row", 6000, "room", fallback_w=1000)], {})
    book.hear("room", cap_set(8000, 1), live=True, now=0.0)
    assert book.limits_w(1.0) == {"room": 8000, "row": 1000}


def test_a_cap_that_is_not_in_the_roster_is_nobodys() -> None:
    book = CapBook([ROOM], {"cellar": {"operator": CapValue(1, 1)}})
    assert not book.hear("cellar", cap_set(1, 2), live=True, now=0.0)
    assert not book.merge({"cellar": {"operator": CapValue(3, 1)}})
    assert (book.values(), book.limits_w(0.0)) == ({}, {"room": 10_000})


def test_a_withdrawn_source_takes_no_place_and_does_not_come_back_by_an_old_message() -> None:
    book = CapBook([ROOM], {})
    for number in range(SOURCES_PER_CAP_MAX):
        book.hear("room", cap_set(9000, 1, f"s{number}"), live=True, now=0.0)
    book.hear("room", cap_set(None, 2, "s3"), live=True, now=0.0)
    assert book.hear("room", cap_set(8000, 1, "one more"), live=True, now=0.0)
    assert not book.hear("room", cap_set(1, 1, "s3"), live=True, now=0.0)


def test_withdrawn_sources_are_bounded_too() -> None:
    book = CapBook([ROOM], {})
    for number in range(1000):
        book.hear("room", cap_set(None, 1, f"s{number}"), live=True, now=0.0)
    assert len(book.values()["room"]) == SOURCES_KNOWN_MAX


def test_a_source_too_many_is_not_counted_and_the_known_ones_still_are() -> None:
    book = CapBook([ROOM], {})
    for number in range(SOURCES_PER_CAP_MAX):
        book.hear("room", cap_set(9000, 1, f"s{number}"), live=True, now=0.0)
    assert book.is_full("room", "one more")
    assert not book.is_full("room", "s3")
    assert not book.hear("room", cap_set(1, 1, "one more"), live=True, now=0.0)
    assert not book.merge({"room": {"one more": CapValue(5, 1)}})
    assert book.hear("room", cap_set(7000, 2, "s3"), live=True, now=0.0)
    assert book.in_force("room", 0.0) == (7000, "s3")


@pytest.mark.parametrize(
    ("mine", "theirs", "below"),
    [
        ({"operator": CapValue(2, 8000)}, {"operator": CapValue(1, 9000)}, True),
        ({"operator": CapValue(2, 8000)}, {}, True),
        ({"operator": CapValue(2, 8000)}, {"operator": CapValue(2, 8000)}, False),
        ({"operator": CapValue(2, 9000)}, {"operator": CapValue(1, 8000)}, False),
        ({}, {}, False),
        ({"operator": CapValue(2, None)}, {"operator": CapValue(1, 8000)}, False),
        ({"operator": CapValue(2, 8000)}, {"operator": CapValue(3, None)}, True),
        ({"operator": CapValue(2, 99_000)}, {}, False),
    ],
)
def test_a_broker_that_shows_a_higher_cap_has_not_heard_of_the_fall(
    mine: dict[str, CapValue], theirs: dict[str, CapValue], below: bool
) -> None:  # protocol C1
    assert CapBook([ROOM], {"room": mine}).is_below({"room": theirs}) is below


def test_one_lower_cap_of_several_is_enough() -> None:  # protocol C1
    book = CapBook([ROOM, ROW], {"row": {"operator": CapValue(2, 5000)}})
    assert book.is_below({"room": {"operator": CapValue(1, 8000)}})


def test_values_are_a_copy_that_later_changes_do_not_reach() -> None:
    book = CapBook([ROOM], {"room": {"operator": CapValue(1, 8000)}})
    before = book.values()
    book.hear("room", cap_set(7000, 2), live=True, now=0.0)
    assert before == {"room": {"operator": CapValue(1, 8000)}}


@pytest.mark.parametrize(
    ("after_w", "is_fall"),
    [
        ({"room": 10_000, "row": 6000}, False),
        ({"room": 9999, "row": 7000}, True),
        ({"room": 11_000, "row": 5999}, True),
        ({"room": 11_000, "row": 6000}, False),
    ],
)
def test_one_cap_that_is_lower_is_a_fall(after_w: dict[str, int], is_fall: bool) -> None:
    assert fell({"room": 10_000, "row": 6000}, after_w) is is_fall


def test_a_path_goes_from_the_nearest_cap_to_the_root() -> None:
    caps = [ROOM, ROW, cap("pdu", 3000, "row")]
    assert path_of(caps, "pdu") == ("pdu", "row", "room")
    assert path_of(caps, "room") == ("room",)
