"""A disk that is full: what cannot be stored is not confirmed, the app goes on, and what was confirmed stays.

The app gets a limit on the size of its files: a small disk could be mounted by root alone.
"""

from __future__ import annotations

from tests.hostile.client import Client, http_client
from tests.hostile.process import AppProcess
from tests.hostile.result import Result

ROOM = 48 * 1024  # bytes that the database may grow by
MOST = 400  # ratings
PROMPT = "How do I clean a pan? " * 60


async def run(app: AppProcess, scale: float) -> Result:
    """Rate until nothing more can be stored, and again when there is room."""
    app.stop()
    app.longest_file = app.db.stat().st_size + ROOM
    await app.start()
    result, confirmed, full = Result(before=app.memory()), set[str](), 0
    async with http_client(app.url) as http:
        client = await Client.open(http)
        for seed in range(max(10, round(MOST * scale))):
            await client.generate(f"{PROMPT}{seed}", seed, tokens=4)
            rating = await client.rate()
            if rating:
                confirmed.add(rating)
            full += rating is None
            if full == 3:
                break
        result.check(full > 0, f"the disk was not full after {len(confirmed)} ratings")
        answer = await client.again().generate("How do I store herbs?")
        result.check(all(answer.texts.values()), "no response comes while the disk is full")
    result.after = app.memory()
    app.stop()
    lost = confirmed - app.stored()
    result.check(not lost, f"{len(lost)} of {len(confirmed)} confirmed ratings are lost")
    app.longest_file = None
    await app.start()
    async with http_client(app.url) as http:
        client = await Client.open(http)
        await client.generate("How do I clean a pan?")
        rating = await client.rate()
        result.check(rating is not None and rating in app.stored(), "nothing can be stored once there is room again")
    result.notes.append(f"{len(confirmed)} ratings were confirmed before the disk was full")
    return result
