"""A disk that is full: what cannot be stored is not confirmed, the app goes on, and what was confirmed stays.

The database is on a small tmpfs. Where that may not be mounted, the app gets a limit on the size of its files instead.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.hostile.client import Client
from tests.hostile.process import AppProcess
from tests.hostile.result import Result

ROOM = 48 * 1024  # bytes that the database may grow by
DISK, LARGER_DISK = "1500k", "64m"  # sizes of the tmpfs; a log of 4 MB alone would fill the first
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


def mount(disk: Path, options: str) -> bool:
    """Mount a tmpfs, or mount it again, and return whether that is possible here."""
    disk.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk]
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


async def run(app: AppProcess, scale: float) -> Result:
    """Rate until nothing more can be stored, and again when there is room."""
    app.stop()
    disk = app.folder / "disk"
    mounted = mount(disk, f"size={DISK}")
    try:
        if mounted:
            app.db = disk / "mixdesk.db"
        else:
            app.longest_file = app.db.stat().st_size + ROOM
        result = await fill_disk(app, scale, disk if mounted else None)
        result.notes.append(f"the disk was {'a tmpfs of ' + DISK if mounted else 'a limit on the size of files'}")
        return result
    finally:
        if mounted:
            if app.running:
                app.stop()
            subprocess.run(["umount", disk], check=True)


async def fill_disk(app: AppProcess, scale: float, disk: Path | None) -> Result:
    """Rate until the disk is full, and make room. disk: the tmpfs, if there is one."""
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
    if disk is not None:
        # The app is running: it must use the room that there is now.
        result.check(mount(disk, f"remount,size={LARGER_DISK}"), "the disk could not be made larger")
    else:
        app.stop()
        lost = confirmed - app.stored()
        result.check(not lost, f"{len(lost)} of {len(confirmed)} confirmed ratings are lost")
        app.longest_file = None
        await app.start()
    async with Client.open(app.url) as client:
        await client.generate("How do I clean a pan?")
        rating, said = await client.rate()
        result.check(rating is not None and rating in app.stored(), f"nothing is stored once there is room: {said}")
    app.stop()
    lost = confirmed - app.stored()
    result.check(not lost, f"{len(lost)} of {len(confirmed)} confirmed ratings are lost")
    result.notes.append(f"{len(confirmed)} ratings were confirmed before the disk was full")
    return result
