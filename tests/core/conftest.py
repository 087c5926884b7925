"""Every test of the scheduler runs in every mode that its state can live in between two rounds."""

from __future__ import annotations

import pytest

from core.scheduling import COLD, JSON, MODES, ROWS, Begin


@pytest.fixture(params=MODES, ids=lambda mode: mode.name)
def begin(request: pytest.FixtureRequest) -> Begin:
    """Begins executions: ``begin(entry_point, *arguments)``. The test runs once in each mode."""
    return Begin(request.param)


@pytest.fixture(params=[COLD, JSON, ROWS], ids=lambda mode: mode.name)
def begin_cold(request: pytest.FixtureRequest) -> Begin:
    """Begins executions of which every resume is a rebuild."""
    return Begin(request.param)


@pytest.fixture(params=[JSON, ROWS], ids=lambda mode: mode.name)
def begin_json(request: pytest.FixtureRequest) -> Begin:
    """Begins executions whose payloads are JSON text."""
    return Begin(request.param)
