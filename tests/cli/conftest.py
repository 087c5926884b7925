"""Fixtures of the command line's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cli.support import SHOP, Said, Shell
from rowtine.cli import main


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A directory with `shop.py`."""
    directory = tmp_path / "shop"
    directory.mkdir()
    (directory / "shop.py").write_text(SHOP)
    return directory


@pytest.fixture
def shell(shop: Path) -> Iterator[Shell]:
    made = Shell(shop)
    yield made
    made.end()


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Runs `rowtine` in this process, for commands that import nothing and wait for nothing."""

    def run(*arguments: str) -> Said:
        with pytest.raises(SystemExit) as end:
            main(arguments)
        captured = capsys.readouterr()
        code = end.value.code
        assert isinstance(code, int)
        return Said(code, captured.out, captured.err)

    return run
