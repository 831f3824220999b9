"""The route that exports a study, for owners."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from app.services.visitor import visitor_of_scope
from app.storage.database import Store
from app.storage.export_study import FOLDER, study_download
from engine import InputError

PREFIX = "/studies/"
OWNERS_ONLY = "Only the owner of this desk can export a study.\n"
# {the address's form: (format of the export, media type, the file's suffix)}
FORMS = {
    "csv": ("csv", "text/csv; charset=utf-8", "csv"),
    "jsonl": ("jsonl", "application/jsonl", "jsonl"),
    "parquet": ("parquet", "application/vnd.apache.parquet", "parquet"),
    "trl": ("trl", "application/jsonl", "trl.jsonl"),
    "kto": ("kto", "application/jsonl", "kto.jsonl"),
    "zip": (FOLDER, "application/zip", "zip"),
}


def study_routes(store: Store) -> list[Route]:
    """Return the routes that export a study by its id and form.

    `names=1` in the query gives annotators their names, and `votes=1` gives TRL's forms a row for each vote.
    """

    async def download(request: Request) -> Response:
        if not visitor_of_scope(request.scope).owner:
            return PlainTextResponse(OWNERS_ONLY, 403)
        study, form = request.path_params["study"], request.path_params["form"]
        if form not in FORMS:
            return PlainTextResponse(f"format: give one of {', '.join(FORMS)}\n", 404)
        kind, media, suffix = FORMS[form]
        names, votes = (request.query_params.get(name) == "1" for name in ("names", "votes"))
        try:
            content = await run_in_threadpool(study_download, store, study, kind, names, votes)
        except InputError as error:
            return PlainTextResponse(f"{error}\n", 404)
        # The id is ASCII, which a study's name need not be.
        headers = {
            "Content-Disposition": f'attachment; filename="study-{study}.{suffix}"',
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
        }
        return Response(content, media_type=media, headers=headers)

    return [Route(PREFIX + "{study:str}.{form}", download)]
