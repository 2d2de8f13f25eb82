"""The price: bids and caps in, one price per cap and one allocation per rack out.

    maximise    Σ_i w_i · log(x_i)               (proportional fairness, Kelly)
    subject to  Σ_{i under c} x_i ≤ C_c          for every cap c of a forest
                lo_i ≤ x_i ≤ hi_i

At the optimum x_i = clip(w_i · min q_c over the caps on its path, lo_i, hi_i), where
q_c = 1/t_c is the largest inverse price at which what is below c, already cut below,
fits C_c. So one sweep from the leaves to the roots is exact: each cap is a problem of
one number, and what it gives is the `hi` of its racks one level up. Prices leave as
currency per kWh with weights in currency per hour: 1000 times the ones above.

Tiers are cleared from the highest down, the higher ones fixed at what they got and
the lower ones at their lo. Every clearing carries the proof of itself.

Units: W in, W out. `x_w` is the optimum, `allocation_w` its floor in whole watts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

PER_KWH = 1000.0
KKT_MAX = 1e-6
VIOLATION_W_MAX = 1e-6  # of the arithmetic; whole watts are far coarser


@dataclass(frozen=True, slots=True)
class MarketCap:
    name: str
    cap_w: float
    parent: str | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """One tick's market. Arrays of shape (n,), in the order of `racks`; powers in W.

    `cap_of` names each rack's nearest cap; `caps` come in any order. 0 ≤ lo ≤ hi,
    weight > 0.
    """

    racks: tuple[str, ...]
    lo_w: Floats
    hi_w: Floats
    weight: Floats
    tier: Ints
    cap_of: tuple[str, ...]
    caps: tuple[MarketCap, ...]


@dataclass(frozen=True, slots=True)
class Certificate:
    """How well an answer holds: see the market page for the definitions."""

    violation_w: float  # largest Σ allocation − cap; ≤ 0 where Σ lo fits
    kkt: float
    iterations: int
    mechanism: str = "exact"

    @property
    def holds(self) -> bool:
        return self.violation_w <= VIOLATION_W_MAX and self.kkt <= KKT_MAX


@dataclass(frozen=True, slots=True)
class Clearing:
    """`price`: per cap in currency per kWh, 0 where it does not bind, None if none is finite.

    `binding`: per rack the cap that holds it below its hi, or None.
    """

    racks: tuple[str, ...]
    x_w: Floats
    allocation_w: Ints
    price: dict[str, float | None]
    binding: tuple[str | None, ...]
    certificate: Certificate


def clear(problem: Problem) -> Clearing:
    """The optimum of `problem`, exact for a forest of caps, tier by tier.

    Where Σ lo exceeds a cap, everyone under it gets lo and its price is None.
    """
    forest = _Forest(problem)
    x_w = problem.lo_w.copy()
    threshold: dict[str, float] = {}  # the tier in which a cap first binds sets its price
    kkt = 0.0
    for tier in np.unique(problem.tier)[::-1]:
        mine = problem.tier == tier
        lo_w = np.where(mine, problem.lo_w, x_w)
        hi_w = np.where(mine, problem.hi_w, x_w)
        x_w, t = forest.sweep(lo_w, hi_w)
        kkt = max(kkt, forest.kkt(x_w, lo_w, hi_w, t, mine))
        for cap, price in t.items():
            if price > 0 and cap not in threshold:
                threshold[cap] = price
    allocation_w = np.floor(x_w).astype(np.int64)
    own = forest.own_prices(threshold)
    return Clearing(
        problem.racks,
        x_w,
        allocation_w,
        {cap: (float(PER_KWH * p) if np.isfinite(p) else None) for cap, p in own.items()},
        forest.binding(x_w, own),
        Certificate(forest.violation_w(allocation_w), kkt, len(problem.caps)),
    )


def solve_one_cap(cap_w: float, w: Floats, lo_w: Floats, hi_w: Floats) -> tuple[Floats, float]:
    """x = clip(w·q, lo, hi) with Σ x = cap, and the price 1/q; one cap, all arrays (n,).

    D(q) = Σ clip(w·q, lo, hi) is piecewise linear with breakpoints lo/w and hi/w. The
    segment is found from their sorted order, q then from the racks that lie inside
    their bounds, so that the answer is as exact as the sums. Of several prices the
    smallest counts. Price 0 where nothing binds, inf where Σ lo leaves no finite one.
    """
    if hi_w.sum() <= cap_w:
        return hi_w.copy(), 0.0
    floor_sum_w = lo_w.sum()
    if floor_sum_w > cap_w:
        return lo_w.copy(), np.inf
    breaks = np.concatenate((lo_w / w, hi_w / w))
    steps = np.concatenate((w, -w))
    order = np.argsort(breaks, kind="stable")
    breaks, slopes = breaks[order], np.cumsum(steps[order])
    demand_w = floor_sum_w + np.concatenate(([0.0], np.cumsum(slopes[:-1] * np.diff(breaks))))
    k = int(np.searchsorted(demand_w, cap_w, side="right")) - 1
    at = breaks[k] if k >= 0 else 0.0
    inside = (lo_w / w <= at) & (hi_w / w > at)
    if not inside.any():
        return np.clip(w * at, lo_w, hi_w), float(1.0 / at) if at > 0 else np.inf
    fixed_w = np.where(lo_w / w > at, lo_w, hi_w)[~inside].sum()
    q = (cap_w - fixed_w) / w[inside].sum()
    return np.clip(w * q, lo_w, hi_w), float(1.0 / q) if q > 0 else np.inf


class _Forest:
    """The caps in an order from the leaves up, with the racks below each."""

    def __init__(self, problem: Problem) -> None:
        self._p = problem
        self._caps = {cap.name: cap for cap in problem.caps}
        self._paths = {cap.name: self._path(cap.name) for cap in problem.caps}
        self._upward = sorted(self._caps, key=lambda name: -len(self._paths[name]))
        self._below = {
            name: np.array([name in self._paths[own] for own in problem.cap_of], dtype=bool)
            for name in self._caps
        }

    def _path(self, name: str) -> tuple[str, ...]:
        path = [name]
        while (parent := self._caps[path[-1]].parent) is not None:
            path.append(parent)
        return tuple(path)

    def sweep(self, lo_w: Floats, hi_w: Floats) -> tuple[Floats, dict[str, float]]:
        x_w = hi_w.copy()
        t: dict[str, float] = {}
        for name in self._upward:
            i = self._below[name]
            cap_w = self._caps[name].cap_w
            x_w[i], t[name] = solve_one_cap(cap_w, self._p.weight[i], lo_w[i], x_w[i])
        return x_w, t

    def own_prices(self, t: Mapping[str, float]) -> dict[str, float]:
        """p_c = max(0, t_c − the dearest of its ancestors)."""
        own: dict[str, float] = {}
        for name, path in self._paths.items():
            mine = t.get(name, 0.0)
            above = max((t.get(ancestor, 0.0) for ancestor in path[1:]), default=0.0)
            own[name] = mine - above if mine > above else 0.0
        return own

    def binding(self, x_w: Floats, own: Mapping[str, float]) -> tuple[str | None, ...]:
        held: list[str | None] = []
        for i, cap in enumerate(self._p.cap_of):
            dearest = max(self._paths[cap], key=lambda name: own[name])  # tie: the nearest
            held.append(dearest if x_w[i] < self._p.hi_w[i] and own[dearest] > 0 else None)
        return tuple(held)

    def violation_w(self, allocation_w: Ints) -> float:
        return max(
            (
                float(allocation_w[self._below[name]].sum() - self._caps[name].cap_w)
                for name in self._upward
            ),
            default=0.0,
        )

    def kkt(
        self,
        x_w: Floats,
        lo_w: Floats,
        hi_w: Floats,
        t: Mapping[str, float],
        mine: NDArray[np.bool_],
    ) -> float:
        """The largest residual of the optimality conditions in this tier."""
        pi = np.array([max(t[name] for name in self._paths[cap]) for cap in self._p.cap_of])
        with np.errstate(divide="ignore"):
            wish_w = np.clip(self._p.weight / pi, lo_w, hi_w)
        residual = np.abs(x_w - wish_w) / np.maximum(1.0, x_w)
        worst = float(residual[mine].max(initial=0.0))
        finite = {name: p for name, p in self.own_prices(t).items() if np.isfinite(p)}
        dearest = max(finite.values(), default=0.0)
        for name, price in finite.items():
            cap_w = self._caps[name].cap_w
            if price > 0 and cap_w > 0:
                slack_w = cap_w - float(x_w[self._below[name]].sum())
                worst = max(worst, price * abs(slack_w) / (cap_w * dearest))
        return worst


def verifies(allocation_w: Mapping[str, int], problem: Problem) -> bool:
    """True where an older allocation fits the caps, floors and ceilings of now."""
    forest = _Forest(problem)
    if set(allocation_w) != set(problem.racks):
        return False
    x_w = np.array([allocation_w[rack] for rack in problem.racks], dtype=np.int64)
    inside = bool(np.all(x_w >= problem.lo_w) and np.all(x_w <= problem.hi_w))
    return inside and forest.violation_w(x_w) <= VIOLATION_W_MAX


def problem_of(
    rows: Sequence[tuple[str, float, float, float, int, str]], caps: Sequence[MarketCap]
) -> Problem:
    """A problem from rows (rack, lo_w, hi_w, weight, tier, cap)."""
    return Problem(
        racks=tuple(row[0] for row in rows),
        lo_w=np.array([row[1] for row in rows], dtype=np.float64),
        hi_w=np.array([row[2] for row in rows], dtype=np.float64),
        weight=np.array([row[3] for row in rows], dtype=np.float64),
        tier=np.array([row[4] for row in rows], dtype=np.int64),
        cap_of=tuple(row[5] for row in rows),
        caps=tuple(caps),
    )
