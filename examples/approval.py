"""An invoice that somebody must approve in time: a race with the clock, one person at a time.

rowtine migrate
python examples/approval.py
"""

from pathlib import Path

import rowtine

app = rowtine.App()

MAILBOX = Path("answers")
"""Where people put their answers: the file `answers/ada` holds Ada's."""


class NoAnswerYetError(Exception):
    """Looked, and there is nothing."""


# What is worth another attempt is said by status: this one is asked again until somebody answers.
rowtine.register_error_type(NoAnswerYetError, rowtine.Status.TEMPORARY_ERROR)


@app.function
def ask(person: str, invoice: str) -> None:
    print(f"{person}, will you approve {invoice}?")


@app.function(retry=rowtine.Retry(initial=0.1, max_interval=5, give_up_after=None))
def answer(person: str) -> str:
    try:
        return (MAILBOX / person).read_text().strip()
    except FileNotFoundError as error:
        raise NoAnswerYetError(person) from error


@app.coroutine  # a member of race: it runs inside the execution that awaits it
async def too_late(seconds: float) -> None:
    await rowtine.sleep(seconds)


@app.function
async def approve(invoice: str, people: list[str], patience: float) -> str:
    for person in people:
        await ask(person, invoice)
        said = await rowtine.race(answer(person), too_late(patience))  # the loser is cancelled
        if said is not None:
            return f"{invoice}: {person} says {said}"
    return f"{invoice}: nobody has answered"


if __name__ == "__main__":
    MAILBOX.mkdir(exist_ok=True)
    (MAILBOX / "grace").write_text("yes\n")  # Ada is on holiday
    print(app.run(approve("invoice 7", ["ada", "grace"], patience=1)))
