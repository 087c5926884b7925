"""`rowtine resolve`, `reject`, `signal`, `cancel` and `terminate`: what others outside may do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import rowtine
from acceptance.support import wait_until
from cli.support import Said
from databases import query

Tell = Callable[..., Said]

app = rowtine.App(poll_interval=0.02, concurrency=4)

NOTHING = Said(0, "", "")


@app.function
def double(x: int) -> int:
    return 2 * x


@app.function
async def approval() -> Any:
    return await rowtine.promise()


@app.function
async def mailbox() -> Any:
    return await rowtine.signal("paid")


@app.function
async def patient() -> None:
    try:
        await rowtine.sleep(3600)
    finally:
        await double(1)


@pytest.fixture
def tell(ask: Tell, database_url: str) -> Iterator[Tell]:
    """`rowtine` with the test's database, on which a worker runs."""
    app.__dict__.pop("database", None)
    app.use_database(database_url)
    with app.worker().start():
        yield lambda *arguments: ask(*arguments, "--database", database_url)
    app.close()


def begun(url: str, call: rowtine.Call[Any]) -> rowtine.Handle[Any]:
    """The handle of a call that has suspended."""
    handle = app.start(call)
    phase = "select phase from calls where id = :id"
    wait_until(lambda: query(url, phase, id=handle.id) == [("suspended",)])
    return handle


def token_of(url: str, handle: rowtine.Handle[Any]) -> str:
    promised = "select token from calls where execution_id = :id and kind = 'promise'"
    ((token,),) = query(url, promised, id=handle.id)
    assert isinstance(token, str)
    return token


# -------------------------------------------------------------------------------- resolve, reject


def test_resolve_answers_a_promise_with_json(tell: Tell, database_url: str) -> None:
    handle = begun(database_url, approval())

    said = tell("resolve", token_of(database_url, handle), '{"by": "ann", "sum": [1, 2.5]}')

    assert said == NOTHING
    assert handle.result(timeout=60) == {"by": "ann", "sum": [1, 2.5]}


def test_resolve_without_a_value_answers_with_null(tell: Tell, database_url: str) -> None:
    handle = begun(database_url, approval())

    assert tell("resolve", token_of(database_url, handle)) == NOTHING
    assert handle.result(timeout=60) is None


def test_the_same_answer_again_is_fine_and_another_is_refused(
    tell: Tell, database_url: str
) -> None:
    handle = begun(database_url, approval())
    token = token_of(database_url, handle)
    tell("resolve", token, "[1, 2]")

    same = tell("resolve", token, "[1,2]")
    other = tell("resolve", token, "[1, 3]")
    rejected = tell("reject", token, "no")

    assert same == NOTHING
    for said in (other, rejected):
        assert (said.code, said.out) == (2, "")
        assert said.complaint == ("rowtine: this promise has another answer, which stays as it is")
    assert handle.result(timeout=60) == [1, 2]


def test_reject_lets_the_await_raise(tell: Tell, database_url: str) -> None:
    handle = begun(database_url, approval())
    token = token_of(database_url, handle)

    assert tell("reject", token, "not today") == NOTHING
    assert tell("reject", token, "not today") == NOTHING
    assert tell("resolve", token, "1").code == 2
    with pytest.raises(RuntimeError, match="not today"):
        handle.result(timeout=60)


@pytest.mark.parametrize("command", [("resolve", "1"), ("reject", "no")])
def test_a_token_that_is_none_is_said_so(tell: Tell, command: tuple[str, str]) -> None:
    said = tell(command[0], "f" * 32, command[1])

    assert (said.code, said.out) == (1, "")
    assert said.complaint == "rowtine: no promise has this token"


def test_a_promise_that_nobody_waits_for_any_more_takes_no_answer(
    tell: Tell, database_url: str
) -> None:
    handle = begun(database_url, approval())
    token = token_of(database_url, handle)
    tell("terminate", handle.id)

    said = tell("resolve", token, "1")

    assert said.code == 2
    assert "nobody waits for this promise any more" in said.complaint


def test_what_is_not_json_is_refused_and_nothing_is_answered(tell: Tell, database_url: str) -> None:
    waiting, hearing = begun(database_url, approval()), begun(database_url, mailbox())
    token = token_of(database_url, waiting)

    for said in (tell("resolve", token, "yes"), tell("signal", hearing.id, "paid", "{1}")):
        assert said.code == 2
        assert "not JSON" in said.complaint
    assert query(database_url, "select count(*) from signals") == [(0,)]
    assert tell("resolve", token, '"yes"') == NOTHING
    assert waiting.result(timeout=60) == "yes"


# ------------------------------------------------------------------------------------------ signal


def test_signal_is_heard_by_the_wait_for_its_name(tell: Tell, database_url: str) -> None:
    handle = begun(database_url, mailbox())

    assert tell("signal", handle.id, "sold", "1") == NOTHING
    assert tell("signal", handle.id.upper()[:-1], "paid", '{"sum": 7}') == NOTHING
    assert handle.result(timeout=60) == {"sum": 7}

    over = tell("signal", handle.id, "paid")
    assert over.code == 2
    assert over.complaint == f"rowtine: call {handle.id} is done, and hears no signal"


def test_a_signal_needs_a_name_that_a_signal_can_have(tell: Tell, database_url: str) -> None:
    handle = begun(database_url, mailbox())

    said = tell("signal", handle.id, "")

    assert said.code == 2
    assert "a name has 1 to 200 characters" in said.complaint
    assert query(database_url, "select count(*) from signals") == [(0,)]


# ------------------------------------------------------------------------------- cancel, terminate


def test_cancel_lets_an_execution_clean_up(tell: Tell, database_url: str) -> None:
    handle = begun(database_url, patient())

    first = tell("cancel", handle.id, "--reason", "closing time")
    with pytest.raises(rowtine.Cancelled, match="closing time"):
        handle.result(timeout=60)
    again = tell("cancel", handle.id, "--reason", "another")

    assert first == Said(0, "told to stop\n", "")
    assert again == Said(0, "it was over already\n", "")
    cleaned = "select status from calls where function like '%double'"
    assert query(database_url, cleaned) == [("OK",)]


def test_terminate_ends_an_execution_without_clean_up(tell: Tell, database_url: str) -> None:
    handle = begun(database_url, patient())

    first = tell("terminate", handle.id[:-2], "--reason", "enough")
    again = tell("terminate", handle.id)

    assert first == Said(0, "ended\n", "")
    assert again == Said(0, "it was over already\n", "")
    with pytest.raises(rowtine.Cancelled, match="enough"):
        handle.result(timeout=60)
    assert query(database_url, "select count(*) from calls where function like '%double'") == [(0,)]


def test_what_is_no_execution_cannot_be_stopped(tell: Tell, database_url: str) -> None:
    begun(database_url, patient())
    ((timer,),) = query(database_url, "select id from calls where kind = 'timer'")

    said = tell("cancel", str(timer))

    assert said.code == 2
    assert said.complaint == f"rowtine: {timer} is a timer: cancel the execution that waits for it"


@pytest.mark.parametrize(
    "command", [("signal", "{id}", "paid"), ("cancel", "{id}"), ("terminate", "{id}")]
)
def test_an_id_has_to_be_one(tell: Tell, database_url: str, command: tuple[str, ...]) -> None:
    def asked_of(id: str) -> Said:
        return tell(*(word.format(id=id) for word in command))

    first, second = begun(database_url, mailbox()), begun(database_url, mailbox())

    assert asked_of("ffff").complaint == "rowtine: there is no call ffff"
    assert asked_of("ffff").code == 1
    assert "is not the id of a call" in asked_of("mailbox").complaint
    several = asked_of(first.id[:4])
    assert several.code == 2
    assert first.id in several.complaint
    assert second.id in several.complaint
    assert query(database_url, "select count(*) from signals") == [(0,)]
    assert query(database_url, "select count(*) from states") == [(2,)]
