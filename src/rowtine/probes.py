"""Named moments at which a test waits, or dies. Silent in production."""

from __future__ import annotations

from typing import Protocol

__all__ = ["SILENT", "Probe"]


class Probe(Protocol):
    """Told of each moment by its name and the call it concerns.

    The moments, in the order of a call's life: ``claiming`` (before the claim's commit),
    ``claimed``, ``running`` (the body is about to run), ``ran``, ``recorded`` (the outcome is
    committed), ``round`` (a round ran, nothing is written), ``committed`` (the round is written).
    """

    def __call__(self, moment: str, call_id: str | None = None) -> None: ...


class _Silent:
    def __call__(self, moment: str, call_id: str | None = None) -> None:
        """Nothing is watched."""


SILENT: Probe = _Silent()
