"""A job that never grows old: a batch of letters, then a tail call with the rest.

    rowtine migrate
    python examples/newsletter.py

Each `Reset` ends a run and begins the next one with an empty journal, under the same id. Work that
goes on for years is replayed from the last one, not from the beginning.
"""

import rowtine

app = rowtine.App()


@app.function
def send(name: str) -> str:
    return f"dear {name}"


@app.function
async def newsletter(names: list[str], sent: int = 0) -> str:
    batch, rest = names[:3], names[3:]
    letters = await rowtine.gather(*[send(name) for name in batch])
    sent += len(letters)
    if rest:
        await rowtine.sleep(0.2)  # the mail server asks for a pause
        raise rowtine.Reset(newsletter, rest, sent)
    return f"{sent} letters, the last one to {batch[-1]}"


if __name__ == "__main__":
    print(app.run(newsletter(["ada", "alan", "barbara", "edsger", "grace", "john", "tony"])))
