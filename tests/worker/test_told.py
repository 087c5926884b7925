"""What a worker is told of, by its own commits or by others, waits for no look. The interval at
which it looks by itself is longer here than any test may take."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import rowtine
from rowtine import Retry

NewApp = Callable[..., rowtine.App]


@pytest.fixture
def app(new_app: NewApp) -> rowtine.App:
    return new_app(poll_interval=300)


class Attempts:
    made = 0


def outcome(app: rowtine.App, call: rowtine.Call[object]) -> object:
    """What it comes to in a worker that was idle."""

    @app.function
    def nothing() -> None:
        pass

    with app.worker().start():
        app.start(nothing()).result(timeout=30)
        return app.start(call).result(timeout=30)


@pytest.mark.parametrize("seconds", [-1, 0, 0.001, 0.3])
def test_a_timer(app: rowtine.App, seconds: float) -> None:
    @app.function
    async def main(seconds: float) -> str:
        await rowtine.sleep(seconds)
        return "woken"

    assert outcome(app, main(seconds)) == "woken"


def test_a_moment_that_has_come(app: rowtine.App) -> None:
    @app.function
    async def main() -> str:
        await rowtine.sleep_until(rowtine.now())
        return "woken"

    assert outcome(app, main()) == "woken"


def test_the_end_of_a_time_limit(app: rowtine.App) -> None:
    @app.function
    async def main() -> str:
        try:
            async with rowtine.timeout(0.05):
                await rowtine.promise()
        except TimeoutError:
            return "in time"
        return "never"

    assert outcome(app, main()) == "in time"


@pytest.mark.parametrize("pause", [0, 0.05])
def test_a_retry(app: rowtine.App, pause: float) -> None:
    Attempts.made = 0

    @app.function(retry=Retry(initial=pause, factor=1, retry_on=(ValueError,)))
    def fails_twice() -> int:
        Attempts.made += 1
        if Attempts.made < 3:
            raise ValueError
        return Attempts.made

    @app.function
    async def main() -> int:
        return await fails_twice()

    assert outcome(app, main()) == 3


def test_what_is_due_later_beside_what_is_due_at_once(app: rowtine.App) -> None:
    """One commit has both: the outcome of one member, and the pause of the other."""
    Attempts.made = 0

    @app.function(retry=Retry(initial=0.2, factor=1, retry_on=(ValueError,)))
    async def fails_once() -> int:
        Attempts.made += 1
        if Attempts.made == 1:
            raise ValueError
        return 1

    @app.function
    async def succeeds() -> int:
        return 2

    @app.function
    async def main() -> list[int]:
        first = await rowtine.any(succeeds(), rowtine.promise())
        return [first, *await rowtine.gather(fails_once(), succeeds())]

    assert outcome(app, main()) == [2, 1, 2]


def test_the_deadline_of_a_call_that_is_made(app: rowtine.App) -> None:
    @app.function
    async def waits() -> None:
        await rowtine.promise()

    @app.function
    async def main() -> str:
        try:
            await waits.options(deadline=0.2)()
        except rowtine.TimedOut:
            return "in time"
        return "never"

    assert outcome(app, main()) == "in time"


@pytest.mark.parametrize("option", ["delay", "deadline"])
def test_what_a_start_says_of_later(app: rowtine.App, option: str) -> None:
    @app.function
    async def waits(times: int) -> str:
        try:
            await rowtine.gather(*[rowtine.promise() for _ in range(times)])
        except TimeoutError:
            return "in time"
        return "begun"

    with app.worker().start():
        if option == "delay":
            late = app.start(waits.options(delay=0.2)(0))
            assert late.result(timeout=30) == "begun"
        else:
            late = app.start(waits.options(deadline=0.2)(1))
            with pytest.raises(rowtine.TimedOut):
                late.result(timeout=30)


def test_a_signal_that_was_sent_before_it_is_waited_for(app: rowtine.App) -> None:
    @app.function
    async def main() -> int:
        await rowtine.sleep(0.1)
        answer: int = await rowtine.signal("answer")
        return answer

    with app.worker().start():
        handle = app.start(main())
        handle.signal("answer", 7)
        assert handle.result(timeout=30) == 7


def test_a_call_that_a_limit_has_held_back(app: rowtine.App) -> None:
    @app.function
    async def one(number: int) -> int:
        return number

    @app.function
    async def main() -> list[int]:
        return await rowtine.map(one, range(5), max_concurrency=2)

    assert outcome(app, main()) == [0, 1, 2, 3, 4]


def test_a_tail_call(app: rowtine.App) -> None:
    @app.function
    async def count_down(left: int) -> str:
        if left == 0:
            return "done"
        raise rowtine.Reset(count_down.options(delay=0.05 * (left % 2))(left - 1))

    assert outcome(app, count_down(3)) == "done"
