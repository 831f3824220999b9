"""A disk that is full: what cannot be stored is not confirmed, the app goes on, and what was confirmed stays.

The app gets a limit on the size of its files: a small disk could be mounted by root alone.
"""

from __future__ import annotations

from tests.hostile.client import Client
from tests.hostile.process import AppProcess
from tests.hostile.result import Result

ROOM = 48 * 1024  # bytes that the database may grow by
BROWSERS, RATINGS = 10, 50  # with an address each: ratings are limited by address
PROMPT = "How do I clean a pan? " * 60


async def fill(client: Client, number: int, confirmed: set[str], refused: list[str]) -> None:
    """Rate until three ratings in a row are refused, or as often as one address may."""
    for seed in range(RATINGS):
        await client.generate(f"{PROMPT}{number} {seed}", seed, tokens=4)
        rating, said = await client.rate()
        if rating:
            confirmed.add(rating)
        else:
            refused.append(said)
        if len(refused) == 3:
            return


async def run(app: AppProcess, scale: float) -> Result:
    """Rate until nothing more can be stored, and again when there is room."""
    app.stop()
    app.longest_file = app.db.stat().st_size + ROOM
    await app.start()
    result, confirmed, refused = Result(before=app.memory()), set[str](), list[str]()
    for number in range(max(1, round(BROWSERS * scale))):
        async with Client.open(app.url, f"127.0.2.{number + 1}") as client:
            await fill(client, number, confirmed, refused)
            if refused:
                answer = await client.again().generate("How do I store herbs?")
                result.check(all(answer.texts.values()), "no response comes while the disk is full")
                break
    result.check(bool(refused), f"the disk was not full after {len(confirmed)} ratings")
    result.check(all("Not saved" in said for said in refused), f"a rating was refused by “{refused[:1]}”")
    result.after = app.memory()
    app.stop()
    lost = confirmed - app.stored()
    result.check(not lost, f"{len(lost)} of {len(confirmed)} confirmed ratings are lost")
    app.longest_file = None
    await app.start()
    async with Client.open(app.url) as client:
        await client.generate("How do I clean a pan?")
        rating, _ = await client.rate()
        result.check(rating is not None and rating in app.stored(), "nothing can be stored once there is room again")
    result.notes.append(f"{len(confirmed)} ratings were confirmed before the disk was full")
    return result
