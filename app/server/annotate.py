"""The annotators' routes of the site: the page of a study, and what it asks for.

A person is recognised by a cookie that scripts cannot read and that no other study or page of the site gets. All
answers are JSON; an error is {"error": one line}, with 429 or 503 if the same request can succeed later, else with
another status. No answer names a system, a mixture, a seed, or the kind of a pair.
"""

from __future__ import annotations

import sqlite3
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.server.allowed_hosts import is_foreign
from app.server.annotate_page import annotate_asset_route, annotate_notice, annotate_shell
from app.server.own_sessions import MalformedError, parse_json
from app.services.guidelines import guidelines_html
from app.services.rate_limit import RateLimit
from app.services.visitor import Account, visitor_of_scope
from app.storage.annotators import Annotator
from app.storage.answer_checks import LONGEST_COMMENT, Feedback, allowed_choices
from app.storage.assignments import Assignment, Assignments, RefusedError
from app.storage.database import Store
from app.storage.database_file import StoreError
from app.storage.study_progress import AnnotatorProgress
from app.storage.study_rows import UnknownStudyError
from engine import InputError

COOKIE = "mixdesk_annotator"
KEPT_FOR = 180 * 24 * 3600  # seconds that a browser keeps the cookie
WRONG_SECRETS = 10  # a minute from a network address
UNKNOWN_COOKIES = 60  # requests with one, a minute from a network address
JOINS = 60  # a minute from a network address
REQUESTS = 600  # a minute of one annotator

NOT_JOINED = "You have not joined this study in this browser: open the whole link of your invitation."
WRONG_SECRET = "This invitation is not valid any more: ask whoever sent it for another."
TOO_MANY_SECRETS = "Too many wrong invitations came from your address: try again in a minute."
TOO_MANY_REQUESTS = "Too many requests came from you: try again in a minute."
FOREIGN = "Only the study's own page may ask for that."
NO_ACTION = "There is nothing at this address: reload the page."
NO_JSON = "The request is no JSON object: reload the page."

Text = Annotated[str, Field(max_length=LONGEST_COMMENT)]
Key = Annotated[str, Field(max_length=300)]


class Body(BaseModel):
    """The body of a request without anything in it."""

    model_config = ConfigDict(strict=True)


class JoinBody(Body):
    """How somebody joins: by an invitation's secret, or by nothing but perhaps a name."""

    secret: Key = ""
    name: Key = ""


class PairBody(Body):
    """What a request says about the pair that is shown."""

    assignment: Key
    comment: Text = ""


class AnswerBody(PairBody):
    """The answer to a pair."""

    answers: Annotated[dict[Key, Key], Field(max_length=20)]
    flagged: bool = False
    seconds: float | None = None


class HttpError(Exception):
    """An error that is not the storage's: its status, and one line."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


class AnnotateRoutes:
    """The routes below /annotate/.

    Args:
        store: The store.
        root: The public path or URL of the site behind a proxy.
        sign_in: Whether people can sign in here, where a study lets them.
    """

    def __init__(self, store: Store, root: str = "", sign_in: bool = False) -> None:
        self.assignments, self.sign_in = Assignments(store), sign_in
        self.root = urlsplit(root).path.rstrip("/")
        self.wrong_secrets, self.unknown_cookies = RateLimit(WRONG_SECRETS), RateLimit(UNKNOWN_COOKIES)
        self.joins, self.requests = RateLimit(JOINS), RateLimit(REQUESTS)
        self.bodies: dict[str, type[Body]] = {
            "join": JoinBody,
            "answer": AnswerBody,
            "skip": PairBody,
            "flag": PairBody,
            **dict.fromkeys(("state", "read", "next", "undo"), Body),
        }

    def routes(self) -> list[Route]:
        """Return the routes, for the site's own application."""
        return [
            annotate_asset_route(),
            Route("/annotate/{study}", self.show, methods=["GET"]),
            Route("/annotate/{study}/{action}", self.act, methods=["POST"]),
        ]

    async def show(self, request: Request) -> Response:
        """Return the annotators' page, or 404 with a sentence if there is no such study to be seen."""
        try:
            settings, _ = await run_in_threadpool(self.assignments.overview, request.path_params["study"], None)
        except UnknownStudyError as error:
            return annotate_notice("No such study", str(error), 404)
        except StoreError as error:
            return annotate_notice("Not available", str(error), 503)
        return annotate_shell(settings.name)

    async def act(self, request: Request) -> Response:
        """Do what the page asks for, and return the answer as JSON."""
        try:
            return await self._act(request)
        except ClientDisconnect:  # before its body was complete: nothing was done, and nobody reads this
            return Response(status_code=400)
        except HttpError as error:
            return error_answer(str(error), error.status)
        except UnknownStudyError as error:
            return error_answer(str(error), 404)
        except RefusedError as error:
            return error_answer(str(error), 409)
        except (StoreError, sqlite3.OperationalError) as error:
            return error_answer(str(error), 503)
        except InputError as error:
            return error_answer(str(error), 400)

    async def _act(self, request: Request) -> Response:
        if is_foreign(request):
            raise HttpError(403, FOREIGN)
        study, action = request.path_params["study"], request.path_params["action"]
        if action not in self.bodies:
            raise HttpError(404, NO_ACTION)
        body = parse_body(await request.body(), self.bodies[action])
        address = visitor_of_scope(request.scope).address
        secret = request.cookies.get(COOKIE, "")
        annotator = await run_in_threadpool(self.find, study, secret, address)
        if annotator is not None and not self.requests.allow(annotator.id):
            raise HttpError(429, TOO_MANY_REQUESTS)
        if isinstance(body, JoinBody):
            joined, session = await run_in_threadpool(self.join, study, body, annotator, address)
            answer = json_answer(await run_in_threadpool(self.state, study, joined))
            if session:
                self.set_cookie(answer, request, study, session)
            return answer
        if action == "state":
            return json_answer(await run_in_threadpool(self.state, study, annotator))
        if annotator is None:
            await run_in_threadpool(self.assignments.overview, study, None)  # 404 if there is no such study
            raise HttpError(401, NOT_JOINED)
        return json_answer(await run_in_threadpool(self.work, study, annotator, action, body))

    # ---------------------------------------------------------------------------------- what blocks, so on a thread

    def find(self, study: str, secret: str, address: str) -> Annotator | None:
        """Return the annotator whom a browser's cookie belongs to.

        Raises:
            HttpError: 429 if too many cookies of an address are nobody's.
        """
        if not secret:
            return None
        if self.unknown_cookies.is_full(address):
            raise HttpError(429, TOO_MANY_REQUESTS)
        annotator = self.assignments.find(study, secret[:200])
        if annotator is None:
            self.unknown_cookies.allow(address)
        return annotator

    def join(
        self, study: str, body: JoinBody, annotator: Annotator | None, address: str
    ) -> tuple[Annotator, str]:  # fmt: skip
        """Return who joins, and the secret of the cookie that their browser is to get, "" if it has it.

        Raises:
            HttpError: if the invitation is wrong, or too many people join from an address.
            InputError: if the study lets nobody in.
        """
        if body.secret and self.wrong_secrets.is_full(address):
            raise HttpError(429, TOO_MANY_SECRETS)
        if annotator is not None and not body.secret:
            return annotator, ""
        if not self.joins.allow(address):
            raise HttpError(429, TOO_MANY_REQUESTS)
        if not body.secret:
            joined = self.assignments.join_anonymously(study, body.name)
        else:
            invited = self.assignments.join_by_invitation(study, body.secret, body.name)
            if invited is None:
                self.wrong_secrets.allow(address)
                raise HttpError(403, WRONG_SECRET)
            joined = invited
        if annotator is not None and joined.id == annotator.id:
            return annotator, ""
        return joined, self.assignments.open_session(joined.id)

    def join_signed_in(self, request: Request, answer: Response, study: str, account: Account) -> None:
        """Let somebody who has signed in join a study, and give their browser its cookie with an answer.

        Raises:
            InputError: if the study does not let them in, or too many people join from an address.
        """
        if not self.joins.allow(visitor_of_scope(request.scope).address):
            raise InputError(TOO_MANY_REQUESTS)
        joined = self.assignments.join_by_sign_in(study, account.key, account.name)
        self.set_cookie(answer, request, study, self.assignments.open_session(joined.id))

    def state(self, study: str, annotator: Annotator | None) -> dict[str, Any]:
        """Return what the page shows to somebody; who has not joined sees no guidelines and no questions."""
        settings, progress = self.assignments.overview(study, annotator.id if annotator else None)
        questions = [{"key": question.key, "text": question.text} for question in settings.questions]
        return {
            **progress_answer(progress),
            "study": {
                "name": settings.name,
                "guidelines_html": guidelines_html(settings.guidelines) if annotator else "",
                "questions": questions if annotator else [],
                "choices": allowed_choices(settings),
            },
            "joining": {"anonymous": settings.anonymous, "sign_in": settings.sign_in and self.sign_in},
            "annotator": {"name": annotator.name} if annotator else None,
        }

    def work(self, study: str, annotator: Annotator, action: str, body: Body) -> dict[str, Any]:
        """Do what an annotator asks for, and return the answer."""
        assignments = self.assignments
        if action == "read":
            assignments.mark_read(study, annotator.id)
            return self.state(study, annotator)
        if isinstance(body, AnswerBody):
            feedback = assignments.answer(
                study,
                annotator.id,
                body.assignment,
                body.answers,
                comment=body.comment,
                flagged=body.flagged,
                seconds=body.seconds,
            )
            progress = progress_answer(assignments.progress(study, annotator.id))
            return {"stored": True, **progress, "feedback": feedback_answer(feedback)}
        if isinstance(body, PairBody):
            change = assignments.skip if action == "skip" else assignments.flag
            change(study, annotator.id, body.assignment, body.comment)
        found = assignments.undo(study, annotator.id) if action == "undo" else assignments.next(study, annotator.id)
        return {**progress_answer(assignments.progress(study, annotator.id)), "assignment": assignment_answer(found)}

    def set_cookie(self, response: Response, request: Request, study: str, session: str) -> None:
        """Give the annotator's browser its cookie, which it sends to this study's addresses only."""
        response.set_cookie(
            COOKIE,
            session,
            max_age=KEPT_FOR,
            path=f"{self.root}/annotate/{study}",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )


def parse_body(content: bytes, kind: type[Body]) -> Body:
    """Return a request's body.

    Raises:
        HttpError: if it is not what the route takes.
    """
    try:
        value = parse_json(content or b"{}")
    except MalformedError as error:
        raise HttpError(400, f"The request's JSON has {error}.") from None
    if not isinstance(value, dict):
        raise HttpError(400, NO_JSON)
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part)[:40] for part in first["loc"])
        raise HttpError(400, f"{place}: {first['msg']}") from None


def progress_answer(progress: AnnotatorProgress) -> dict[str, Any]:
    """Return how far an annotator is, as their page gets it."""
    training = {"done": progress.training_done, "total": progress.training_total, "attempt": progress.attempt}
    counts = {"answered": progress.answered, "total": progress.total, "training": training}
    return {"phase": progress.phase.value, "progress": counts}


def assignment_answer(assignment: Assignment | None) -> dict[str, Any] | None:
    """Return a pair as its annotator's page gets it: nothing that tells where it comes from, or what it is for."""
    if assignment is None:
        return None
    shown = ("id", "prompt", "a", "b", "training", "answers", "comment", "flagged")
    return {name: getattr(assignment, name) for name in shown}


def feedback_answer(feedback: Feedback | None) -> dict[str, Any] | None:
    """Return the feedback on a training pair as the page gets it."""
    return None if feedback is None else {"right": feedback.right, "text": feedback.text}


def json_answer(value: Any, status: int = 200) -> Response:
    """Return a value as JSON that is neither cached nor shown as a page."""
    return JSONResponse(value, status, headers={"Cache-Control": "no-store"})


def error_answer(words: str, status: int) -> Response:
    """Return an error in one line."""
    answer = json_answer({"error": " ".join(words.split())}, status)
    if status in (429, 503):
        answer.headers["Retry-After"] = "60" if status == 429 else "5"
    return answer
