"""Checked by mypy and pyright, never run: the scheduler used on its own."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from typing import assert_type

import rowtine
from rowtine import Exit, Incompatible, Input, OneShotScheduler, Output, Poll

app = rowtine.App("sqlite:///never-opened.db")


@app.function
async def main(n: int) -> int:
    return n


async def an_output_is_one_of_three() -> int:
    scheduler = OneShotScheduler(main, version="1", poll_min_results=1, poll_max_results=10)
    output = await scheduler.run(Input.first(1))
    assert_type(output, Output)
    match output:
        case Poll():
            assert_type(output.calls, list[rowtine.CallRequest])
            assert_type(output.state, rowtine.State)
            result = rowtine.CallResult(output.calls[0].call_id, value=1)
            await scheduler.run(Input.resume(output.state, [result]))
            return output.min_results
        case Exit():
            assert_type(output.error, Exception | None)
            assert_type(output.status, rowtine.Status)
            return 0
        case Incompatible():
            assert_type(output.message, str)
            return 1
