"""What a request passes before a route sees it, and what every answer bears.

In this order: the size of its head, the name it calls (against DNS rebinding), the page it comes from (against forged
requests), how often its sender asks, the token, the kind and size of its body, the number of requests in work, and the
time it may take. Whatever is refused, and whatever goes wrong inside, ends as ``application/problem+json``.
"""

import asyncio
import hmac
import logging
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mixtura.web.body import Bodies, Gone
from mixtura.web.limits import Crowd, Rate
from mixtura.web.problems import Refusal, busy, refusal_of, response
from mixtura.web.seen import PHOTOS, READS, Seen, seen
from mixtura.web.settings import Settings
from mixtura.web.telemetry import Telemetry

HEALTH = "/healthz"
PAGES = frozenset({"/", "/docs"})
STATIC = "/static/"
WITH_PHOTOS = PHOTOS | {"/v1/products"}

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "connect-src 'self'; manifest-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=(), payment=(), usb=()",
}
"""Headers of every answer; ``cache-control`` comes to them where a route has not set its own."""

log = logging.getLogger("mixtura.web")


class Guard:
    """The outermost part of the service.

    Args:
        app: what is guarded.
        settings: the limits.
        telemetry: what counts the answers.
        room: raises a refusal where a photo would have to wait too long.
    """

    def __init__(self, app: ASGIApp, settings: Settings, telemetry: Telemetry, room: Callable[[], None]) -> None:
        self._app, self._settings, self._telemetry, self._room = app, settings, telemetry, room
        self._reads = Rate(settings.read_rate, settings.read_burst, time.monotonic)
        self._writes = Rate(settings.write_rate, settings.write_burst, time.monotonic)
        self._crowd = Crowd(settings.in_flight)
        self._bodies = Bodies(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, Answer(send))

    async def _answer(self, scope: Scope, receive: Receive, answer: "Answer") -> None:
        began = time.perf_counter()
        try:
            await self._in_time(scope, receive, answer)
        except Gone:
            answer.status = answer.status or 499
        except Exception as error:
            await self._explain(error, scope, answer)
        seconds = time.perf_counter() - began
        route = getattr(scope.get("route"), "path", "other")
        self._telemetry.answered(scope["method"], route, answer.status, seconds)
        log.info("%s %s %s %d %.1f ms", answer.id, scope["method"], route, answer.status, 1000 * seconds)

    async def _in_time(self, scope: Scope, receive: Receive, answer: "Answer") -> None:
        limit = asyncio.timeout(self._settings.request_seconds)
        try:
            async with limit:
                await self._checked(scope, receive, answer)
        except TimeoutError:
            if not limit.expired():
                raise
            seconds = f"{self._settings.request_seconds:g}"
            raise busy(f"The answer took longer than {seconds} s, the limit. Ask again.", 5) from None

    async def _checked(self, scope: Scope, receive: Receive, answer: "Answer") -> None:
        request = seen(scope)
        check_head(request, self._settings)
        check_origin(request)
        if request.path == HEALTH:
            await self._app(scope, receive, answer)
            return
        (self._writes if request.writes else self._reads).take(request.client)
        check_token(request, self._settings)
        check_body(request)
        if request.path in PHOTOS and request.has_body:
            await self._entered()
        limit = self._settings.body_bytes if request.path in WITH_PHOTOS else self._settings.edit_bytes
        async with self._bodies.whole(receive, request, limit) as whole:
            with self._crowd.one():
                await self._app(scope, whole, answer)

    async def _entered(self) -> None:
        """See that a photo may be worked on soon; who is refused hears of it a little later, and so asks less often.

        Raises:
            Refusal: 503.
        """
        try:
            self._room()
        except Refusal:
            await asyncio.sleep(self._settings.hold)
            raise

    async def _explain(self, error: Exception, scope: Scope, answer: "Answer") -> None:
        refused = refusal_of(error)
        if refused is None:
            log.error("request %s failed", answer.id, exc_info=error)
            refused = Refusal(500, f"The server made a mistake. Its operator finds it in the log: {answer.id}.")
        if answer.status:  # too late for another answer: the connection is cut, so that nobody takes it for whole
            return
        with suppress(Exception):  # the client may have left
            await response(refused, scope["path"], answer.id)(scope, _nothing, answer)


class Answer:
    """Sends an answer with the headers that all have, and remembers its status; ``id`` names the request."""

    def __init__(self, send: Send) -> None:
        self._send, self.status, self.id = send, 0, secrets.token_hex(8)

    async def __call__(self, message: Message) -> None:
        """Pass one message on."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
            headers.setdefault("cache-control", "no-store")
            headers["x-request-id"] = self.id
        await self._send(message)


def check_head(request: Seen, settings: Settings) -> None:
    """See that the head is not too long and calls this service by one of its names.

    Raises:
        Refusal: 431 or 400.
    """
    if request.size > settings.header_bytes:
        raise Refusal(431, f"Address and headers are above {settings.header_bytes >> 10} KiB, the limit.")
    if request.host not in settings.hosts:
        raise Refusal(400, "This service does not answer to that name. Its operator can add it by --host-name.")


def check_origin(request: Seen) -> None:
    """See that the request comes from our own page, from the address bar, or from a program, but from no other site.

    Raises:
        Refusal: 403.
    """
    site = request.headers.get("sec-fetch-site")
    visits = request.method in READS and request.path in PAGES and request.headers.get("sec-fetch-mode") == "navigate"
    if site not in (None, "same-origin", "none") and not visits:
        raise Refusal(403, "Another site has sent this request. Open the page of this service and send it from there.")
    origin = request.headers.get("origin")
    if origin is not None and origin.lower() not in {f"http://{request.netloc}", f"https://{request.netloc}"}:
        raise Refusal(403, "Another site has sent this request. Open the page of this service and send it from there.")


def check_token(request: Seen, settings: Settings) -> None:
    """See that who asks for more than everybody may have knows the token.

    Raises:
        Refusal: 401.
    """
    page = request.method in READS and (request.path in PAGES or request.path.startswith(STATIC))
    if page or not (settings.public or request.writes):
        return
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    right = hmac.compare_digest(token.strip().encode("latin-1"), settings.token.encode())
    if scheme.lower() != "bearer" or not right:
        what = "This needs" if settings.public else "Changes need"
        said = f"{what} the token that mixtura serve has printed, as the header Authorization: Bearer TOKEN."
        raise Refusal(401, said, {"WWW-Authenticate": 'Bearer realm="mixtura"'})


def check_body(request: Seen) -> None:
    """See that a body is JSON, or a photo where one is expected, and not compressed.

    Raises:
        Refusal: 415.
    """
    if not request.has_body:
        return
    photo = request.path in PHOTOS and request.content_type.startswith("image/")
    if not photo and request.content_type != "application/json":
        kinds = "JSON, or a photo with its image/... type" if request.path in PHOTOS else "JSON"
        raise Refusal(415, f"The body must be {kinds}; say so by Content-Type.")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal(415, "The body must not be compressed. Leave Content-Encoding out.")


async def _nothing() -> dict[str, Any]:
    return {"type": "http.disconnect"}
