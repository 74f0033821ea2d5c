"""What went wrong, as ``application/problem+json`` (RFC 9457), and which status an error of mixtura has."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from urllib.parse import quote

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from mixtura.errors import BadItem, BundleError, CannotWrite, MixturaError, NoInput, OutOfSpace
from mixtura.web import schemas

MEDIA_TYPE = "application/problem+json"
MAX_DETAIL_LENGTH = 500  # characters
EDIT_FAILED = "The server could not change the catalog. The operator finds the cause in the log under the request id."


class Refusal(Exception):
    """A request that is not answered; ``headers`` go with the status."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, dict(headers or {})


def busy(detail: str, seconds: int = 1) -> Refusal:
    """Too much to do at the moment; ask again in so many seconds."""
    return Refusal(503, detail, {"Retry-After": str(seconds)})


def response(refused: Refusal, path: str, request_id: str) -> JSONResponse:
    """The refusal as an answer."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(refused.status).phrase,
        "status": refused.status,
        "detail": refused.detail[:MAX_DETAIL_LENGTH],
        "instance": quote(path[:MAX_DETAIL_LENGTH]),
        "request_id": request_id,
    }
    return JSONResponse(body, refused.status, headers=refused.headers, media_type=MEDIA_TYPE)


def refusal_of(error: Exception) -> Refusal | None:
    """What an exception on the way to an answer means to the client; ``None`` for a fault of ours."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, RequestValidationError):
        return Refusal(422, _first_fault(error))
    if isinstance(error, HTTPException):
        phrase = HTTPStatus(error.status_code).phrase
        details = {404: "There is nothing at this address. See /docs.", 405: "This address does not take this method."}
        return Refusal(error.status_code, details.get(error.status_code, f"{phrase}."), error.headers)
    return _of_mixtura(error) if isinstance(error, MixturaError) else None


def _of_mixtura(error: MixturaError) -> Refusal | None:
    if isinstance(error, BadItem):
        return Refusal(422, str(error))
    if isinstance(error, NoInput):
        return Refusal(404, str(error))
    if isinstance(error, OutOfSpace | CannotWrite):
        return busy(EDIT_FAILED, 5)  # the sentence names files of the server
    return None if isinstance(error, BundleError) else Refusal(409, str(error))


def place_of(loc: Sequence[int | str]) -> str:
    """Where a fault is, for people; photos are counted from one.

    >>> place_of(("body", "images", 0)), place_of(("query", "k"))
    ('body.images, photo 1', 'query.k')
    """
    *head, last = loc[:6] or ("",)
    if isinstance(last, int) and head and head[-1] == "images":
        return f"{'.'.join(map(str, head))}, photo {last + 1}"
    return ".".join(map(str, (*head, last)))


def _first_fault(error: RequestValidationError) -> str:
    """Where and what, without the value that was sent."""
    first = error.errors()[0]
    place = place_of(first["loc"]) or "request"
    hint = schemas.PATTERN_HINTS.get(first.get("ctx", {}).get("pattern"), first["msg"])
    return f"{place}: {hint}."
