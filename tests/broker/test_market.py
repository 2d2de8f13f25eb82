"""The price: literal clearings, the optimum's own properties, and an independent solver."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.market import (
    Certificate,
    Clearing,
    MarketCap,
    Problem,
    clear,
    problem_of,
    solve_one_cap,
    verifies,
)

Row = tuple[str, float, float, float, int, str]
ROOM = MarketCap("room", 10_000)


def row(
    rack: str, lo_w: float, hi_w: float, weight: float = 1.0, tier: int = 1, cap: str = "room"
) -> Row:
    return (rack, lo_w, hi_w, weight, tier, cap)


def cleared(rows: Sequence[Row], caps: Sequence[MarketCap] = (ROOM,)) -> Clearing:
    return clear(problem_of(rows, caps))


# ---- one cap, by hand ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "x_w", "price"),
    [
        # p = Σw / C = 4 / 10 000 per W, 1000 times that per kWh
        ([row("a", 0, 9000, 1), row("b", 0, 9000, 3)], [2500, 7500], 0.4),
        # b's ceiling binds: a gets the rest, p = 1 / 6000
        ([row("a", 0, 9000, 1), row("b", 0, 4000, 3)], [6000, 4000], 1000 / 6000),
        # a's floor binds: b gets the rest, p = 3 / 6000
        ([row("a", 4000, 9000, 1), row("b", 0, 9000, 3)], [4000, 6000], 0.5),
        # everybody has what it wants: nothing binds, the price is 0
        ([row("a", 0, 4000), row("b", 0, 6000)], [4000, 6000], 0.0),
        ([row("a", 0, 4000), row("b", 0, 5000)], [4000, 5000], 0.0),
        # lo = hi: it counts and takes no part
        ([row("a", 4000, 4000, 9), row("b", 0, 9000), row("c", 0, 9000)], [4000, 3000, 3000],
         1000 / 3000),
        # Σ lo = C: the smallest price at which nobody wants more is max w/lo
        ([row("a", 4000, 9000, 1), row("b", 6000, 9000, 3)], [4000, 6000], 0.5),
        # Σ lo > C: everyone at lo, no price is finite
        ([row("a", 6000, 9000), row("b", 6000, 9000)], [6000, 6000], None),
        # one rack alone
        ([row("a", 500, 12_000, 2)], [10_000], 0.2),
        ([row("a", 500, 9000, 2)], [9000], 0.0),
        # a floor of 0 beside one that takes all: x = 0 and no price is finite
        ([row("a", 0, 9000), row("b", 10_000, 10_000)], [0, 10_000], None),
        # the plateau: demand is 10 000 W at any q from 4000 to 5000; the smallest price counts
        ([row("a", 0, 4000, 1), row("b", 6000, 9000, 1.2)], [4000, 6000], 0.2),
        # nine decades of weight
        ([row("a", 0, 9000, 1e-6), row("b", 0, 20_000, 1e3)], [1e-5, 10_000], 1e2),
    ],
)  # fmt: skip
def test_one_cap_is_shared_in_proportion_to_the_weights_within_the_bounds(
    rows: list[Row], x_w: list[float], price: float | None
) -> None:
    answer = cleared(rows)
    assert answer.x_w.tolist() == pytest.approx(x_w, rel=1e-6, abs=1e-9)
    assert answer.price["room"] == (None if price is None else pytest.approx(price, rel=1e-6))
    assert answer.certificate.kkt <= 1e-9


def test_an_allocation_is_the_optimum_in_whole_watts_rounded_down() -> None:
    answer = cleared([row("a", 0, 9000), row("b", 0, 9000), row("c", 0, 9000)])
    assert answer.x_w.tolist() == pytest.approx([10_000 / 3] * 3)
    assert answer.allocation_w.tolist() == [3333, 3333, 3333]
    assert answer.certificate.violation_w == -1.0


def test_a_market_without_racks_is_a_market() -> None:
    answer = cleared([])
    assert (answer.racks, answer.price, answer.certificate.holds) == ((), {"room": 0.0}, True)


# ---- a tree ----------------------------------------------------------------------------


TREE = (MarketCap("room", 10_000), MarketCap("row", 3000, "room"), MarketCap("other", 9000, "room"))


def test_in_a_tree_the_dearest_cap_of_the_path_holds_a_rack() -> None:
    rows = [
        row("a", 0, 9000, cap="row"), row("b", 0, 9000, cap="row"), row("c", 0, 9000, cap="other")
    ]  # fmt: skip
    answer = cleared(rows, TREE)
    assert answer.x_w.tolist() == pytest.approx([1500, 1500, 7000])
    assert answer.binding == ("row", "row", "room")
    # room: 1/7000; the row's own price is what is missing to 1/1500
    assert answer.price["room"] == pytest.approx(1000 / 7000)
    assert answer.price["row"] == pytest.approx(1000 / 1500 - 1000 / 7000)
    assert answer.price["other"] == 0.0


def test_a_row_that_does_not_bind_has_no_price() -> None:
    rows = [row("a", 0, 2000, cap="row"), row("c", 0, 5000, cap="other")]
    answer = cleared(rows, TREE)
    assert answer.x_w.tolist() == [2000, 5000]
    assert answer.price == {"room": 0.0, "row": 0.0, "other": 0.0}
    assert answer.binding == (None, None)


def test_when_only_the_room_binds_rows_do_not_matter() -> None:
    rows = [row("a", 0, 3000, 1, cap="row"), row("c", 0, 9000, 9, cap="other")]
    answer = cleared(rows, TREE)
    assert answer.x_w.tolist() == pytest.approx([1000, 9000])
    assert answer.binding == ("room", None)  # c has all that it wants


def test_three_levels_with_the_tightest_in_the_middle() -> None:
    caps = (
        MarketCap("pdu", 5000, "row"), MarketCap("row", 2000, "room"), MarketCap("room", 10_000)
    )  # fmt: skip
    answer = cleared([row("a", 0, 9000, cap="pdu"), row("b", 0, 9000, cap="row")], caps)
    assert answer.x_w.tolist() == pytest.approx([1000, 1000])
    assert answer.binding == ("row", "row")
    assert answer.price["pdu"] == 0.0


def test_racks_directly_under_the_room_share_it_with_the_rows() -> None:
    rows = [row("a", 0, 9000, cap="row"), row("b", 0, 9000, cap="room")]
    assert cleared(rows, TREE).x_w.tolist() == pytest.approx([3000, 7000])


def test_two_rooms_have_nothing_to_do_with_each_other() -> None:
    caps = (MarketCap("east", 1000), MarketCap("west", 4000))
    answer = cleared([row("a", 0, 9000, cap="east"), row("b", 0, 9000, cap="west")], caps)
    assert answer.x_w.tolist() == [1000, 4000]
    assert answer.price == {"east": pytest.approx(1.0), "west": pytest.approx(0.25)}


# ---- tiers -----------------------------------------------------------------------------


def test_the_larger_tier_is_served_first() -> None:  # the example of the market page
    rows = [row("r1", 1000, 6000, tier=2, cap="row"), row("r2", 1000, 9000, tier=1, cap="other")]
    assert cleared(rows, TREE).x_w.tolist() == pytest.approx([3000, 7000])


@pytest.mark.parametrize(
    ("cap_w", "x_w"),
    [
        (10_000, [6000, 4000]),
        (7500, [6000, 1500]),
        (6500, [5500, 1000]),  # the lower tier keeps its floor
        (2000, [1000, 1000]),
    ],
)
def test_a_lower_tier_gets_its_floor_and_then_what_is_left(cap_w: float, x_w: list[float]) -> None:
    rows = [row("r1", 1000, 6000, 1, tier=2), row("r2", 1000, 9000, 1e6, tier=1)]
    assert cleared(rows, [MarketCap("room", cap_w)]).x_w.tolist() == pytest.approx(x_w)


def test_a_caps_price_is_that_of_the_tier_in_which_it_first_binds() -> None:
    rows = [
        row("a", 0, 9000, 2, tier=2), row("b", 0, 9000, 2, tier=2), row("c", 0, 9000, 7, tier=1)
    ]  # fmt: skip
    answer = cleared(rows)
    assert answer.x_w.tolist() == pytest.approx([5000, 5000, 0])
    assert answer.price["room"] == pytest.approx(0.4)


# ---- what cannot be held ---------------------------------------------------------------


def test_under_a_cap_below_its_floors_everyone_gets_the_floor_and_others_their_market() -> None:
    rows = [
        row("a", 2000, 9000, cap="row"), row("b", 2000, 9000, cap="row"),
        row("c", 0, 9000, cap="other"),
    ]  # fmt: skip
    answer = cleared(rows, TREE)
    assert answer.x_w.tolist() == pytest.approx([2000, 2000, 6000])
    assert answer.price["row"] is None
    assert answer.certificate.violation_w == 1000.0
    assert not answer.certificate.holds


@pytest.mark.parametrize(
    ("violation_w", "kkt", "holds"),
    [(0.0, 0.0, True), (-50.0, 1e-6, True), (1.0, 0.0, False), (0.0, 1e-5, False)],
)
def test_a_clearing_that_fails_its_check_says_so(
    violation_w: float, kkt: float, holds: bool
) -> None:
    assert Certificate(violation_w, kkt, 1).holds is holds


def test_a_problem_that_is_no_number_does_not_verify() -> None:
    assert not Certificate(float("nan"), 0.0, 1).holds
    assert not Certificate(0.0, float("nan"), 1).holds


@pytest.mark.parametrize(
    ("allocation_w", "fits"),
    [
        ({"a": 2000, "b": 8000}, True),
        ({"a": 2000, "b": 8001}, False),  # the cap
        ({"a": 500, "b": 1000}, True),
        ({"a": 499, "b": 1000}, False),  # a floor
        ({"a": 6001, "b": 1000}, False),  # a ceiling
        ({"a": 2000}, False),  # another set of racks
        ({"a": 2000, "b": 2000, "c": 0}, False),
    ],
)
def test_an_older_allocation_stands_only_on_the_bounds_of_now(
    allocation_w: dict[str, int], fits: bool
) -> None:
    problem = problem_of([row("a", 500, 6000), row("b", 1000, 9000)], [ROOM])
    assert verifies(allocation_w, problem) is fits


# ---- any one cap -------------------------------------------------------------------------


whole_watts = st.integers(0, 20_000)
weights = st.floats(1e-4, 1e5)


@st.composite
def some_rows(draw: st.DrawFn, caps: tuple[str, ...] = ("room",), tiers: int = 1) -> list[Row]:
    rows = []
    for i in range(draw(st.integers(1, 8))):
        lo_w, hi_w = sorted((draw(whole_watts), draw(whole_watts)))
        tier, cap = draw(st.integers(1, tiers)), draw(st.sampled_from(caps))
        rows.append(row(f"r{i}", lo_w, hi_w, draw(weights), tier, cap))
    return rows


@st.composite
def one_cap(draw: st.DrawFn) -> tuple[list[Row], float]:
    """Rows, and a cap that is anywhere from Σ lo to a little above Σ hi."""
    rows = draw(some_rows())
    lo_w, hi_w = sum(r[1] for r in rows), sum(r[2] for r in rows)
    return rows, float(draw(st.integers(int(lo_w), int(hi_w) + 100)))


def by_bisection(rows: Sequence[Row], cap_w: float) -> list[float]:
    """Σ clip(w·q, lo, hi) = cap, by halving log q. Knows nothing of breakpoints."""
    lo_w, hi_w, weight = (np.array([r[i] for r in rows], dtype=float) for i in (1, 2, 3))
    if hi_w.sum() <= cap_w:
        return list(map(float, hi_w))
    low, high = -40.0, 40.0
    for _ in range(200):
        middle = (low + high) / 2
        if np.clip(weight * np.exp(middle), lo_w, hi_w).sum() > cap_w:
            high = middle
        else:
            low = middle
    return list(map(float, np.clip(weight * np.exp(low), lo_w, hi_w)))


@given(one_cap())
@settings(max_examples=200, deadline=None)
def test_one_cap_agrees_with_bisection_fits_and_proves_itself(
    problem: tuple[list[Row], float],
) -> None:
    rows, cap_w = problem
    answer = cleared(rows, [MarketCap("room", cap_w)])
    assert answer.x_w.tolist() == pytest.approx(by_bisection(rows, cap_w), rel=1e-7, abs=1e-6)
    assert answer.x_w.sum() <= cap_w * (1 + 1e-12) + 1e-9
    assert answer.certificate.kkt <= 1e-9
    assert answer.certificate.violation_w <= 0
    assert answer.certificate.holds


@given(one_cap())
@settings(max_examples=100, deadline=None)
def test_the_price_is_the_smallest_at_which_what_is_wanted_fits(
    problem: tuple[list[Row], float],
) -> None:
    rows, cap_w = problem
    lo_w, hi_w, weight = (np.array([r[i] for r in rows], dtype=float) for i in (1, 2, 3))
    _, price = solve_one_cap(cap_w, weight, lo_w, hi_w)
    if price == 0.0:
        assert hi_w.sum() <= cap_w
    elif price < inf:
        at = np.clip(weight / price, lo_w, hi_w).sum()
        below = np.clip(weight / (price * 0.999), lo_w, hi_w).sum()
        assert at == pytest.approx(cap_w, rel=1e-9, abs=1e-6)
        assert below > cap_w


@given(one_cap(), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_the_order_of_the_racks_does_not_matter(
    problem: tuple[list[Row], float], random: object
) -> None:
    rows, cap_w = problem
    mixed = list(rows)
    random.shuffle(mixed)  # type: ignore[attr-defined]
    caps = [MarketCap("room", cap_w)]
    straight, other = cleared(rows, caps), cleared(mixed, caps)
    found = dict(zip(other.racks, other.x_w.tolist(), strict=True))
    assert [found[r] for r in straight.racks] == pytest.approx(straight.x_w.tolist(), rel=1e-9)


@given(one_cap(), st.floats(1.0, 1e4))
@settings(max_examples=100, deadline=None)
def test_a_larger_weight_never_lowers_its_rack_nor_raises_another(
    problem: tuple[list[Row], float], factor: float
) -> None:
    rows, cap_w = problem
    caps = [MarketCap("room", cap_w)]
    before = cleared(rows, caps).x_w
    rack, lo_w, hi_w, weight, tier, cap = rows[0]
    after = cleared([(rack, lo_w, hi_w, weight * factor, tier, cap), *rows[1:]], caps).x_w
    slack_w = 1e-9 * (1 + before)
    assert after[0] >= before[0] - slack_w[0]
    assert np.all(after[1:] <= before[1:] + slack_w[1:])


# ---- any tree ----------------------------------------------------------------------------


NAMES = ("room", "row1", "row2", "pdu")
PARENTS = {"room": None, "row1": "room", "row2": "room", "pdu": "row1"}


def below(cap: str, own: str) -> bool:
    at: str | None = own
    while at is not None and at != cap:
        at = PARENTS[at]
    return at == cap


@st.composite
def a_tree(draw: st.DrawFn, tiers: int = 3) -> Problem:
    """A tree of four caps, each no lower than the floors below it."""
    rows = draw(some_rows(NAMES, tiers))
    caps = []
    for name in NAMES:
        mine = [r for r in rows if below(name, r[5])]
        lo_w, hi_w = int(sum(r[1] for r in mine)), int(sum(r[2] for r in mine))
        caps.append(MarketCap(name, draw(st.integers(lo_w, hi_w + 100)), PARENTS[name]))
    return problem_of(rows, draw(st.permutations(caps)))


@given(a_tree())
@settings(max_examples=200, deadline=None)
def test_no_cap_floor_or_ceiling_is_ever_broken(problem: Problem) -> None:
    answer = clear(problem)
    for cap in problem.caps:
        mine = [below(cap.name, own) for own in problem.cap_of]
        assert answer.allocation_w[mine].sum() <= cap.cap_w
        assert answer.x_w[mine].sum() <= cap.cap_w * (1 + 1e-12) + 1e-6
    assert np.all(answer.allocation_w >= problem.lo_w)
    assert np.all(answer.allocation_w <= problem.hi_w)
    assert answer.certificate.kkt <= 1e-9
    assert answer.certificate.holds


@given(a_tree(tiers=1))
@settings(max_examples=200, deadline=None)
def test_in_any_tree_every_rack_has_what_the_prices_on_its_path_give_it(problem: Problem) -> None:
    answer = clear(problem)
    if any(price is None for price in answer.price.values()):
        return  # a floor of 0 and no room: no price is finite
    for i, own in enumerate(problem.cap_of):
        price = sum(p or 0.0 for cap, p in answer.price.items() if below(cap, own))
        wish_w = 1000 * problem.weight[i] / price if price else inf
        expected_w = min(max(wish_w, problem.lo_w[i]), problem.hi_w[i])
        assert answer.x_w[i] == pytest.approx(expected_w, rel=1e-6, abs=1e-6)
    for cap in problem.caps:  # a price only where the cap is full
        if answer.price[cap.name]:
            mine = [below(cap.name, own) for own in problem.cap_of]
            assert answer.x_w[mine].sum() == pytest.approx(cap.cap_w, rel=1e-9, abs=1e-6)


@given(a_tree(tiers=1))
@settings(max_examples=200, deadline=None)
def test_a_rack_below_its_wish_is_held_by_a_full_cap_with_a_price(problem: Problem) -> None:
    answer = clear(problem)
    for i, held in enumerate(answer.binding):
        if held is None:
            finite = all(price is not None for price in answer.price.values())
            assert answer.x_w[i] == problem.hi_w[i] or not finite
        else:
            assert below(held, problem.cap_of[i])
            assert answer.price[held] != 0.0
