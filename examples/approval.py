"""An invoice that somebody must approve in time: a promise, one person at a time.

rowtine migrate
python examples/approval.py
"""

import rowtine

app = rowtine.App()


@app.function
def ask(person: str, invoice: str, token: str) -> None:
    """Sends a mail with a link, say. Whoever follows it holds the token."""
    print(f"{person}, will you approve {invoice}?")
    if person == "grace":  # Ada is on holiday
        app.resolve(token, "yes")


@app.function
async def approve(invoice: str, people: list[str], patience: float) -> str:
    for person in people:
        answer = rowtine.promise(timeout=patience)
        await ask(person, invoice, answer.token)
        try:
            return f"{invoice}: {person} says {await answer}"
        except TimeoutError:
            continue
    return f"{invoice}: nobody has answered"


if __name__ == "__main__":
    print(app.run(approve("invoice 7", ["ada", "grace"], patience=1)))
