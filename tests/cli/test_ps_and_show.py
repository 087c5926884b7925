"""`rowtine ps`, `show` and `result`: rows as a person reads them, and as a program does."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

import rowtine
from acceptance.support import wait_until
from cli.support import Said
from databases import query
from rowtine.cli.text import duration, line_of, place, plain, shortened
from rowtine.store import Database, reports

Ask = Callable[..., Said]

HERE = Path(__file__).name

app = rowtine.App(poll_interval=0.02, concurrency=4)
running = threading.Event()
go_on = threading.Event()


@app.function
def double(x: int) -> int:
    return 2 * x


@app.function
def fail(message: str) -> None:
    raise ValueError(message)


@app.function
def hold(name: str) -> None:
    running.set()
    go_on.wait(60)


@app.function(name="[red]below[/red]")
async def below(n: int) -> int:
    if n == 0:
        await rowtine.sleep(3600)
    return await below(n - 1)


@app.coroutine
async def child(x: int) -> int:
    doubled = await double(x)
    await rowtine.sleep(3600)
    return doubled


@app.coroutine
async def soon(x: int) -> int:
    return x


@app.function
async def parent(width: int) -> None:
    with suppress(ValueError):
        await fail("first \x1b[31mred\x1b[0m [bold]loud[/bold]")
    await rowtine.race(soon(1), double(5))
    await rowtine.gather(
        *[child(i) for i in range(width)],
        below(2),
        rowtine.gather(double(1), rowtine.sleep(3600)),
        *[double(i) for i in range(width)],
    )


@app.function
async def steps(n: int) -> None:
    for i in range(n):
        await double(i)
    await rowtine.sleep(3600)


@app.function
async def slow(x: int) -> int:
    if x == 1:
        raise ValueError("no one")
    await rowtine.sleep(3600)
    return x


@app.coroutine
async def nap() -> None:
    await rowtine.sleep(3600)


@app.coroutine
async def listening() -> None:
    async with rowtine.timeout(500):
        await rowtine.signal("shipped")


@app.coroutine
async def limited() -> None:
    await rowtine.map(slow, range(6), max_concurrency=2, max_failures=1)


@app.coroutine
async def each() -> None:
    async for task in rowtine.as_completed([double(1), slow(2), slow(3)]):
        await task


@app.coroutine
async def shielding() -> None:
    await rowtine.shield(nap())


@app.coroutine
async def until() -> None:
    await rowtine.sleep_until(datetime(2990, 1, 1, tzinfo=UTC))


@app.function
async def order() -> None:
    answer = rowtine.promise(timeout=7200)
    task = rowtine.spawn(slow(7))
    with suppress(TimeoutError):
        async with rowtine.timeout(0.05):
            await rowtine.signal("never")
    async with rowtine.timeout(500):
        await double(1)
    await rowtine.race(shielding(), rowtine.sleep(0))
    await rowtine.gather(listening(), limited(), each(), until(), task, answer)


ORDER_TIMERS = 8
"""Those that are left when the order waits for nothing but them."""


@app.function
async def approval() -> None:
    await rowtine.promise(timeout=7200)


@app.function
async def stubborn() -> None:
    try:
        await rowtine.signal("stop")
    finally:
        await rowtine.sleep(3600)


@app.function
async def holding() -> None:
    task = rowtine.spawn(hold("a"))
    await task


@pytest.fixture
def begin(database_url: str) -> Iterator[Callable[..., str]]:
    """Starts a call, and returns its id when nothing but timers is left to wait for."""
    app.__dict__.pop("database", None)
    app.use_database(database_url)
    running.clear()
    go_on.clear()
    with app.worker().start():

        def start(call: rowtine.Call[object], timers: int = 1) -> str:
            id = app.start(call).id
            idle = (
                "select count(*) from calls where kind = 'timer' and phase = 'queued' and not"
                " exists (select 1 from calls where kind = 'function' and phase in"
                " ('queued', 'running') and not coalesce(parked, false)) and not exists"
                " (select 1 from states where wake_at is not null)"
            )
            wait_until(lambda: query(database_url, idle) == [(timers,)])
            return id

        yield start
        go_on.set()
    app.close()


def suspend(url: str, call: rowtine.Call[object]) -> str:
    """Start a call, and return its id when it has suspended."""
    id = app.start(call).id
    phase = "select phase from calls where id = :id"
    wait_until(lambda: query(url, phase, id=id) == [("suspended",)])
    return id


# -------------------------------------------------------------------------------------------- ps


def test_nothing_in_flight_is_said_so(ask: Ask, database_url: str) -> None:
    assert ask("ps", "--database", database_url) == Said(0, "nothing is in flight\n", "")
    assert ask("ps", "--json", "--database", database_url) == Said(0, "", "")


def test_ps_says_what_waits_where_and_for_what(
    ask: Ask, database_url: str, begin: Callable[..., str]
) -> None:
    id = begin(parent(2), timers=4)

    said = ask("ps", "--database", database_url)

    lines = said.out.splitlines()
    assert said.code == 0
    assert lines[-1] == "6 suspended"
    assert all(len(line.split()[0]) == 36 for line in lines[1:-1])
    (whole,) = [line for line in lines if line.split()[1:2] == ["parent"]]
    assert whole.startswith(id)
    assert "all: 4 pending" in whole
    assert f"{HERE}:" in whole
    assert sum("parent/child" in line and "sleep" in line for line in lines) == 2
    assert sum("[red]below[/red]" in line for line in lines) == 3


def test_ps_names_the_process_of_what_runs_and_counts_the_queue(
    ask: Ask, database_url: str, begin: Callable[..., str]
) -> None:
    for name in "abcdef":
        app.start(hold(name))
    wait_until(
        lambda: query(database_url, "select count(*) from calls where phase='running'") == [(4,)]
    )

    said = ask("ps", "--limit", "5", "--database", database_url)
    flights = ask("ps", "--json", "--database", database_url).out.splitlines()

    lines = said.out.splitlines()
    assert lines[-1] == "4 running, 2 queued; 1 of them not shown (--limit)"
    assert [line.split()[2] for line in lines[1:-1]] == ["running"] * 4 + ["queued"]
    ((pid,),) = query(database_url, "select pid from workers")
    assert f"pid {pid} on " in lines[1]
    assert [json.loads(line)["pid"] for line in flights] == [pid] * 4 + [None] * 2


def test_ps_says_what_is_waited_for_in_words(
    ask: Ask, database_url: str, begin: Callable[..., str]
) -> None:
    begin(order(), timers=ORDER_TIMERS)
    begin(approval(), timers=ORDER_TIMERS)

    lines = ask("ps", "--database", database_url).out.splitlines()

    for function, words in {
        "approval": "promise, 120 min left",
        "order/listening": "signal shipped, 8 min left",
        "order/limited": "all: 5 pending, 3 parked",
        "order/each": "task: 2 pending",
        "order/until": "sleep_until, ",
        "order/nap": "sleep, 60 min left",
    }.items():
        assert any(f"  {function} " in line and f"  {words}" in line for line in lines), words
    assert all(f"{HERE}:" in line for line in lines[1:-1])


def test_ps_shows_who_runs_a_task_and_who_was_told_to_stop(
    ask: Ask, database_url: str, begin: Callable[..., str]
) -> None:
    stopped = suspend(database_url, stubborn.options(deadline=3000)())
    app.handle(stopped).cancel("closing time\x1b[31m")
    wait_until(
        lambda: query(database_url, "select count(*) from calls where kind='timer'") == [(1,)]
    )
    app.start(holding())
    running.wait(60)

    lines = ask("ps", "--database", database_url).out.splitlines()

    ((pid,),) = query(database_url, "select pid from workers")
    (holder,) = [line for line in lines if line.split()[1] == "holding"]
    assert f"  task hold (pid {pid} on " in holder
    (told,) = [line for line in lines if line.split()[1] == "stubborn"]
    assert r"  sleep, 50 min left; told to stop: closing time\x1b[31m  " in told


def test_no_token_is_shown(ask: Ask, database_url: str, begin: Callable[..., str]) -> None:
    id = suspend(database_url, approval())
    ((token,),) = query(database_url, "select token from calls where token is not null")

    for command in (("ps",), ("ps", "--json"), ("show", id, "--values"), ("show", id, "--json")):
        said = ask(*command, "--database", database_url)
        assert said.code == 0
        assert token not in said.out


# ------------------------------------------------------------------------------------------ show


def test_show_draws_tasks_promises_signals_and_limits(
    ask: Ask, database_url: str, begin: Callable[..., str]
) -> None:
    id = begin(order.options(key="k 7", deadline=3000)(), timers=ORDER_TIMERS)
    for name in ("sold", "asked", "sold"):
        app.handle(id).signal(name)

    said = ask("show", id, "--database", database_url)

    assert _without_times(said.out).splitlines() == [
        f"order (key k 7)  suspended  {id}",
        "├── promise  open",
        "├── slow  suspended",
        "│   └── sleep  queued",
        "├── time limit  over",
        "├── signal never  given up: time limit",
        "├── time limit  kept",
        "├── double  done",
        "├── race of 2  done",
        "│   ├── shielding  cancelled",
        "│   │   ├── race of 1, shielded  pending",
        "│   │   │   └── nap  suspended",
        "│   │   │       └── sleep  queued",
        "│   │   └── wait for task race(nap)  cancelled",
        "│   └── sleep  done",
        "├── all of 6  6 pending",
        "│   ├── listening  suspended",
        "│   │   ├── time limit  queued",
        "│   │   └── signal shipped  open",
        "│   ├── limited  suspended",
        "│   │   └── all of 6, 2 at once  5 pending",
        "│   │       ├── slow  suspended",
        "│   │       │   └── sleep  queued",
        "│   │       ├── slow  invalid argument  ValueError: no one",
        "│   │       ├── slow  suspended",
        "│   │       │   └── sleep  queued",
        *["│   │       ├── slow  parked"] * 2,
        "│   │       └── slow  parked",
        "│   ├── each  suspended",
        "│   │   ├── 3 begun",
        "│   │   │   ├── double  done",
        "│   │   │   ├── slow  suspended",
        "│   │   │   │   └── sleep  queued",
        "│   │   │   └── slow  suspended",
        "│   │   │       └── sleep  queued",
        "│   │   ├── wait for the next of 3 tasks  done",
        "│   │   └── wait for the next of 3 tasks  2 pending",
        "│   ├── until  suspended",
        "│   │   └── sleep_until  queued",
        "│   ├── wait for task slow  pending",
        "│   └── wait for promise  pending",
        "├── signal sold (2)  sent",
        "└── signal asked  sent",
    ]
    assert ", deadline in 50 min" in said.out.splitlines()[0]
    assert "5 pending, 3 parked, 1 failed, for " in said.out
    assert "promise  open, 120 min left, for " in said.out
    assert "fanout.py" not in said.out
    assert "awaitables.py" not in said.out


def test_show_counts_the_parked_that_it_does_not_show(
    ask: Ask, database_url: str, begin: Callable[..., str]
) -> None:
    id = begin(order(), timers=ORDER_TIMERS)

    said = ask("show", id, "--width", "2", "--database", database_url)

    assert "└── and 1 invalid argument, 3 parked" in said.out


def test_show_says_who_was_told_to_stop_and_why(
    ask: Ask, database_url: str, begin: Callable[..., str]
) -> None:
    id = suspend(database_url, stubborn())
    app.handle(id).cancel("closing time")
    wait_until(
        lambda: query(database_url, "select count(*) from calls where kind='timer'") == [(1,)]
    )

    said = ask("show", id, "--database", database_url)

    assert ", told to stop: closing time  " in said.out.splitlines()[0]
    assert _without_times(said.out).splitlines()[1:] == [
        "├── signal stop  cancelled",
        "└── sleep  queued",
    ]


def test_show_draws_what_was_and_what_is_waited_for(
    ask: Ask, database_url: str, begin: Callable[..., str]
) -> None:
    id = begin(parent(2), timers=4)

    said = ask("show", id, "--database", database_url)

    assert said.code == 0
    assert _without_times(said.out).splitlines() == [
        f"parent  suspended  {id}",
        r"├── fail  invalid argument  ValueError: first \x1b[31mred\x1b[0m [bold]loud[/bold]",
        "├── race of 2  done",
        "│   ├── soon  done",
        "│   └── double  cancelled",
        "└── all of 6  4 pending",
        "    ├── child  suspended",
        "    │   ├── double  done",
        "    │   └── sleep  queued",
        "    ├── child  suspended",
        "    │   ├── double  done",
        "    │   └── sleep  queued",
        "    ├── [red]below[/red]  suspended",
        "    │   └── [red]below[/red]  suspended",
        "    │       └── [red]below[/red]  suspended",
        "    │           └── sleep  queued",
        "    ├── all of 2  1 pending",
        "    │   ├── double  done",
        "    │   └── sleep  queued",
        "    ├── double  done",
        "    └── double  done",
    ]


@pytest.mark.peer_case(135)
def test_show_says_at_which_line_each_wait_stands(
    ask: Ask, database_url: str, begin: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parent)
    id = begin(below(0))

    said = ask("show", id, "--database", database_url)

    source = Path(__file__).read_text().splitlines()
    line = 1 + next(n for n, text in enumerate(source) if "await rowtine.sleep(3600)" in text)
    assert said.out.splitlines()[1].endswith(f"  {HERE}:{line}")


def test_show_keeps_wide_joins_and_long_journals_short(
    ask: Ask, database_url: str, begin: Callable[..., str]
) -> None:
    wide = begin(parent(9), timers=11)
    long = begin(steps(9), timers=12)

    wide_said = ask("show", wide, "--width", "2", "--database", database_url).out
    long_said = ask("show", long, "--width", "2", "--database", database_url).out

    members = [line for line in wide_said.splitlines() if line.startswith("    ├── ")]
    names = ["child", "child", "[red]below[/red]", "double"]
    assert [line.split()[1] for line in members] == names
    assert wide_said.splitlines()[-1].strip() == "└── and 8 done, 8 suspended"
    assert _without_times(long_said).splitlines()[1:] == [
        "├── 8 earlier waits",
        "├── double  done",
        "└── sleep  queued",
    ]


def test_show_follows_calls_only_so_deep_and_says_where_to_go_on(
    ask: Ask, database_url: str, begin: Callable[..., str]
) -> None:
    id = begin(below(3))

    said = ask("show", id, "--depth", "2", "--database", database_url)

    third = said.out.splitlines()[-1].split("rowtine show ")[1]
    assert len(said.out.splitlines()) == 4
    assert "suspended" in ask("show", third, "--database", database_url).out


def test_show_adds_values_and_the_traceback_of_what_failed(
    ask: Ask, database_url: str, begin: Callable[..., str]
) -> None:
    handle = app.start(fail("no \x1b[2Jtea"))
    with pytest.raises(ValueError, match="tea"):
        handle.result(timeout=60)

    said = ask("show", handle.id, "--values", "--database", database_url)

    assert r"ValueError: no \x1b[2Jtea" in said.out
    assert r'{"args":["no \u001b[2Jtea"]}' in said.out
    assert "raise ValueError(message)" in said.out
    assert "\x1b" not in said.out


def test_show_as_json_holds_the_same_facts(
    ask: Ask, database_url: str, begin: Callable[..., str]
) -> None:
    id = begin(parent(2), timers=4)

    told = json.loads(ask("show", id, "--json", "--database", database_url).out)["executions"]

    first = told[0]
    assert first["call"]["id"] == id
    assert first["call"]["phase"] == "suspended"
    assert {join["kind"] for join in first["joins"]} == {"all", "race"}
    assert {c["function"] for c in first["coroutines"] if c["status"] is None} >= {"child"}
    assert [story["call"]["function"] for story in told].count("[red]below[/red]") == 3


# ------------------------------------------------------------------------------------ ids, result


def test_an_id_may_be_shortened_while_it_is_the_only_one(
    ask: Ask, database_url: str, begin: Callable[..., str]
) -> None:
    first = app.start(double(1))
    second = app.start(double(2))
    second.result(timeout=60)
    first.result(timeout=60)
    n = next(i for i in range(36) if first.id[i] != second.id[i])

    one = ask("show", second.id[: n + 1].upper(), "--database", database_url)
    several = ask("show", first.id[:4], "--database", database_url)

    assert second.id in one.out
    assert several.code == 2
    assert first.id in several.complaint
    assert second.id in several.complaint


def test_result_prints_the_stored_json(
    ask: Ask, database_url: str, begin: Callable[..., str]
) -> None:
    good, none = app.start(double(21)), app.start(hold("x"))
    go_on.set()
    open_ = begin(below(0))

    assert ask("result", good.id, "--wait", "--database", database_url).out == "42\n"
    assert ask("result", none.id, "--wait", "--database", database_url).out == "null\n"
    pending = ask("result", open_, "--database", database_url)
    assert pending.code == 1
    assert pending.complaint == f"rowtine: {open_} has no result yet"


def test_the_progress_of_one_function_is_counted_by_who_has_it(
    database_url: str, begin: Callable[..., str]
) -> None:
    id = begin(steps(3))
    database = Database(database_url)

    with database.reading() as connection:
        progress = reports.progress(connection, id, "double")
        nothing = reports.progress(connection, id, "hold")
    database.close()

    assert (progress.total, progress.done, progress.again, progress.held) == (3, 3, 0, ())
    assert (nothing.total, nothing.done) == (0, 0)


# ------------------------------------------------------------------------------------------ text


def test_what_a_terminal_would_act_upon_is_escaped() -> None:
    assert plain("a\x1b[31mb\x07\x9b2J") == r"a\x1b[31mb\x07\x9b2J"
    assert plain("left\u202eright\ud800") == r"left\u202eright\ud800"
    assert plain("Zürich 東京\nline") == "Zürich 東京\nline"
    assert line_of("two\r\nlines\tand\x00") == r"two lines and\x00"
    assert shortened("x" * 50, 10) == "xxxxxxx..."


def test_time_spans_are_as_precise_as_one_reads_them() -> None:
    spans = (-1, 0.04, 9.94, 9.96, 119, 120, 7199, 7200, 172799, 172800)

    assert [duration(span) for span in spans] == [
        *("0.0 s", "0.0 s", "9.9 s", "10 s", "119 s", "2 min", "120 min", "2 h", "48 h", "2 d")
    ]


def test_places_are_short_where_the_reader_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert place(str(tmp_path / "a" / "b.py"), 3) == "a/b.py:3"
    assert place("/elsewhere/c\x1b.py", 4) == r"/elsewhere/c\x1b.py:4"
    assert place("/elsewhere/c.py", 4, short=True) == "c.py:4"
    assert place(None, None) == ""


def _without_times(text: str) -> str:
    """The tree without ages, rounds and places, which differ from run to run."""
    lines = []
    for line in text.splitlines():
        kept = [
            word if "── " in word else word.split(", ")[0]
            for word in line.split("  ")
            if not word.startswith("/") and HERE not in word
        ]
        lines.append("  ".join(kept).rstrip())
    return "\n".join(lines)
