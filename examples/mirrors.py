"""The first mirror that answers: `any`, and errors that are retried or not.

rowtine migrate
python examples/mirrors.py
"""

from pathlib import Path

import rowtine

app = rowtine.App()

TRIES = Path("tries")
"""One line for each attempt: functions run in any process, so what they count is in a file."""


@app.function(retry=rowtine.Retry(max_attempts=5, initial=0.05))
def fetch(mirror: str, file: str) -> str:
    with TRIES.open("a") as tries:
        print(mirror, file=tries)
    attempt = TRIES.read_text().split().count(mirror)
    if mirror == "gone":
        raise FileNotFoundError(file)  # NOT_FOUND is permanent: one attempt
    if attempt < 3:
        raise ConnectionError(f"{mirror} hung up")  # TCP_ERROR is temporary: again, with backoff
    return f"{file} from {mirror}, attempt {attempt}"


@app.function
async def download(file: str) -> str:
    try:
        return await rowtine.any(fetch("gone", file), fetch("flaky", file))
    except rowtine.AnyException as error:
        return f"no mirror has {file}: {error.exceptions}"


if __name__ == "__main__":
    TRIES.unlink(missing_ok=True)
    print(app.run(download("rowtine.tar.gz")))
