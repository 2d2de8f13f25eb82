"""Errors of the broker room, by whose fault they are."""

from __future__ import annotations


class WireError(Exception):
    """A payload that is not what its topic promises. The world's fault: dropped and counted."""
