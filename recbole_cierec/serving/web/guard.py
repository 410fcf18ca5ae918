"""What every request passes: its size, its origin, and the headers and form of the answer."""

from __future__ import annotations

import json
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recbole_cierec.errors import UserError
from recbole_cierec.serving.web.refusal import Refusal
from recbole_cierec.terminal import one_line

MOST_JSON = 2**20  # bytes of a body
MOST_UPLOAD = 32 * 2**20  # bytes of a body with a picture
UPLOADS = "/api/new_item"
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_RAW_HEADERS = [(k.lower().encode(), v.encode()) for k, v in _HEADERS.items()]


def json_answer(content: Any, status: int = 200) -> Response:
    """JSON without the detour over response models; numbers that are none are an error."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    body = text.encode("utf-8", "backslashreplace")
    headers = {"Cache-Control": "no-store"}
    return Response(body, status, headers, media_type="application/json")


def problem(status: int, error: str, hint: str) -> Response:
    """The form of every error answer."""
    return json_answer({"error": one_line(error)[:2000], "hint": one_line(hint)}, status)


class Guard:
    """Adds security headers, and refuses bodies that are too long and requests of other sites.

    A body is counted while it arrives, so that at most the limit is kept.

    Args:
        app: What answers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        most = MOST_UPLOAD if scope["path"] == UPLOADS else MOST_JSON
        length = headers.get(b"content-length", b"0")
        begun, left = False, most

        async def guarded(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message["headers"] = [*message["headers"], *_RAW_HEADERS]
            await send(message)

        async def counted() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise _TooLong
            return message

        if headers.get(b"sec-fetch-site") == b"cross-site" and scope["path"].startswith("/api/"):
            refused = problem(403, "the request comes from a page of another site", "open / here")
            await refused(scope, receive, guarded)
        elif not length.isdigit() or int(length[:18]) > most:
            await _too_long(most)(scope, receive, guarded)
        else:
            try:
                await self._app(scope, counted, guarded)
            except _TooLong:
                if not begun:
                    await _too_long(most)(scope, receive, guarded)


class _TooLong(BaseException):
    """No Exception, which the parser of forms would turn into an answer of its own."""


def _too_long(most: int) -> Response:
    answer = problem(
        413, f"the request is longer than {most:,} bytes", "send a smaller picture or fewer ids"
    )
    answer.headers["Connection"] = "close"  # what is left of the body is not read
    return answer


def add_handlers(app: FastAPI) -> None:
    """Give every error the form of :func:`problem`; none shows a traceback or an input."""

    @app.exception_handler(Refusal)
    async def refused(request: Request, error: Refusal) -> Response:
        return problem(error.status, error.error, error.hint)

    @app.exception_handler(UserError)
    async def user_error(request: Request, error: UserError) -> Response:
        return problem(422, str(error), "change the request; /openapi.json describes it")

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part != "body")
        text = str(first["msg"]).removeprefix("Value error, ")
        return problem(
            422, f"{place or 'body'}: {text}"[:500], "/openapi.json describes every request"
        )

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        hint = "see /openapi.json for the paths and methods"
        answer = problem(error.status_code, str(error.detail).lower(), hint)
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        return problem(500, "internal error", "the terminal of the server shows what happened")
