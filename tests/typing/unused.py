"""Checked by mypy (which has a rule for it), never run: a template that nobody awaits does
nothing, so a forgotten `await` is an error."""

import rowtine

app = rowtine.App("sqlite:///never-opened.db")


@app.function
def charge(cents: int) -> int:
    return cents


@app.function
async def forgets_to_await() -> None:
    charge(1)  # type: ignore[unused-awaitable]
    rowtine.sleep(1)  # type: ignore[unused-awaitable]
    rowtine.gather(charge(1), charge(2))  # type: ignore[unused-awaitable]
