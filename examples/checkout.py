"""An order: charge and reserve at the same time, wait a moment, ship.

    rowtine migrate
    python examples/checkout.py

Kill it while it waits and start a worker (`rowtine worker examples.checkout:app`): it ships.
"""

import rowtine

app = rowtine.App()  # ROWTINE_DATABASE_URL, else sqlite:///rowtine.db


@app.function  # its outcome is recorded once; its body may run again after a crash
def charge(order: str, cents: int) -> str:
    return f"receipt for {cents / 100} EUR"


@app.function(retry=rowtine.Retry(max_attempts=8), timeout=30)
async def reserve(order: str) -> str:
    return "shelf 7"


@app.function
def ship(order: str, receipt: str, shelf: str) -> str:
    return f"{order} left {shelf} with a {receipt}"


@app.function  # async, and awaiting other functions: every await is a durable step
async def checkout(order: str, cents: int) -> str:
    receipt, shelf = await rowtine.gather(charge(order, cents), reserve(order))
    await rowtine.sleep(1)  # or hours=24: no process has to stay alive for it
    return await ship(order, receipt, shelf)


if __name__ == "__main__":
    print(app.run(checkout("order 1", 4200)))
