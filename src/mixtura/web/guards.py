"""What a request passes before a route sees it, and the headers of every answer.

In this order: the size of its head, the host it names (against DNS rebinding; probes may name any), the page it comes
from (against forged requests), how often its client asks, whether its address exists, the token, the kind and size of
its body, the number of requests in flight, and the time it may take. Every refusal, and every fault inside, is answered
as ``application/problem+json``. HEAD is GET without a body.
"""

import asyncio
import hmac
import logging
import re
import secrets
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mixtura.web.body import BodyReader, ClientDisconnected
from mixtura.web.forms import FORM_TYPE
from mixtura.web.problems import Refusal, busy, refusal_of, response
from mixtura.web.rate_limit import RateLimit
from mixtura.web.request_info import HEALTH_PATH, PAGE_PATHS, QUERY_PATHS, RequestInfo
from mixtura.web.settings import Settings
from mixtura.web.telemetry import Telemetry
from mixtura.web.uploads import JSON_TYPE, is_photo_type

PHOTO_PATHS = QUERY_PATHS | {"/v1/products"}

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "connect-src 'self'; manifest-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=(), payment=(), usb=()",
}
"""Headers of every answer; ``cache-control`` comes to them where a route has not set its own."""

_PORT_PATTERN = re.compile(r":[0-9]{1,5}$")

log = logging.getLogger("mixtura.web")


class Guard:
    """The outermost middleware of the service.

    Args:
        app: what is guarded.
        settings: the limits.
        telemetry: what counts the answers.
        check_overload: raises a refusal where a photo would have to wait too long.
        methods_at: the methods of the address of a request; none if there is nothing.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        telemetry: Telemetry,
        check_overload: Callable[[], None],
        methods_at: Callable[[Scope], set[str]],
    ) -> None:
        self._app, self._settings, self._telemetry = app, settings, telemetry
        self._check_overload, self._methods_at = check_overload, methods_at
        self._check_host = TrustedHostMiddleware(_accept_host, sorted(settings.hosts), www_redirect=False)
        self._reads = RateLimit(settings.read_rate, settings.read_burst, time.monotonic)
        self._writes = RateLimit(settings.write_rate, settings.write_burst, time.monotonic)
        # Not uvicorn's limit_concurrency: it counts idle connections too (64 silent ones shut everybody out), refuses
        # the page and /healthz as well, and answers in plain text without Retry-After.
        self._in_flight = asyncio.Semaphore(settings.max_in_flight)
        self._bodies = BodyReader(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, Answer(send, with_body=scope["method"] != "HEAD"))

    async def _answer(self, scope: Scope, receive: Receive, answer: "Answer") -> None:
        began = time.perf_counter()
        try:
            await self._in_time(scope, receive, answer)
        except ClientDisconnected:
            answer.status = answer.status or 499
        except Exception as error:
            await self._explain(error, scope, answer)
        seconds = time.perf_counter() - began
        route = getattr(scope.get("route"), "path", "other")
        self._telemetry.count_answer(scope["method"], route, answer.status, seconds)
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
            raise busy(f"The answer took longer than {seconds} s, the limit. Try again.", 5) from None

    async def _checked(self, scope: Scope, receive: Receive, answer: "Answer") -> None:
        request = RequestInfo.of(scope)
        check_head(request, self._settings)
        if not request.is_probe:
            await self._check_host(scope, receive, _refuse_host)
        check_origin(request, self._settings)
        if request.path == HEALTH_PATH:
            await self._pass_on(scope, receive, answer)
            return
        if self._settings.public:  # on 127.0.0.1 all clients are this machine, whose owner has started the service
            (self._writes if request.writes else self._reads).take(request.client)
        check_address(request, self._methods_at(scope))
        check_token(request, self._settings)
        check_body(request)
        if request.path in QUERY_PATHS and request.has_body:
            await self._refuse_overload()
        limit = self._settings.body_bytes if request.path in PHOTO_PATHS else self._settings.edit_bytes
        async with self._bodies.read(receive, request, limit) as whole, self._slot(request):
            await self._pass_on(scope, whole, answer)

    async def _pass_on(self, scope: Scope, receive: Receive, answer: "Answer") -> None:
        """Have the app answer; HEAD as GET, whose body is then left out."""
        if scope["method"] != "HEAD":
            await self._app(scope, receive, answer)
            return
        asked = {**scope, "method": "GET"}
        await self._app(asked, receive, answer)
        scope["route"] = asked.get("route")

    def _slot(self, request: RequestInfo) -> AbstractAsyncContextManager[None]:
        """One of the requests in flight; files of the page need none.

        Raises:
            Refusal: 503 if all are taken.
        """
        if request.wants_page:
            return nullcontext()
        if self._in_flight.locked():
            limit = self._settings.max_in_flight
            raise busy(f"The service is busy with {limit} requests, its limit. Retry in a second.")
        return self._in_flight

    async def _refuse_overload(self) -> None:
        """Refuse a photo that would have to wait too long, a little later, so that its client asks less often.

        Raises:
            Refusal: 503.
        """
        try:
            self._check_overload()
        except Refusal:
            await asyncio.sleep(self._settings.overload_delay)
            raise

    async def _explain(self, error: Exception, scope: Scope, answer: "Answer") -> None:
        refused = refusal_of(error)
        if refused is None:
            log.error("request %s failed", answer.id, exc_info=error)
            refused = Refusal(500, f"Internal error. The operator finds the cause in the log under {answer.id}.")
        if answer.status:  # too late for another answer: the connection is cut, so that nobody takes it for whole
            return
        with suppress(Exception):  # the client may have left
            await response(refused, scope["path"], answer.id)(scope, _nothing, answer)


class Answer:
    """Sends an answer with the headers that all have, and remembers its status; ``id`` names the request."""

    def __init__(self, send: Send, with_body: bool) -> None:
        self._send, self._with_body, self.status, self.id = send, with_body, 0, secrets.token_hex(8)

    async def __call__(self, message: Message) -> None:
        """Pass one message on."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers[name] = value
            headers.setdefault("cache-control", "no-store")
            headers["x-request-id"] = self.id
        elif not self._with_body:
            message = {**message, "body": b""}
        await self._send(message)


def check_head(request: RequestInfo, settings: Settings) -> None:
    """Check the size of the address and the headers.

    Raises:
        Refusal: 431.
    """
    if request.size > settings.header_bytes:
        raise Refusal(431, f"The address and headers exceed {settings.header_bytes >> 10} KiB, the limit.")


def check_address(request: RequestInfo, methods: set[str]) -> None:
    """Check that there is something at the address, before anybody is asked for a token.

    Raises:
        HTTPException: 404 or 405.
    """
    if not methods:
        raise HTTPException(404)
    if request.method not in methods:
        raise HTTPException(405, headers={"Allow": ", ".join(sorted(methods))})


def check_origin(request: RequestInfo, settings: Settings) -> None:
    """Check that the request comes from our own page, the address bar or a program, and from no other site.

    Raises:
        Refusal: 403.
    """
    headers = request.headers
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    opens_page = request.is_safe and request.path in PAGE_PATHS and headers.get("sec-fetch-mode") == "navigate"
    foreign_site = site not in (None, "same-origin", "none") and not opens_page
    if foreign_site or (origin is not None and origin.lower() not in request.origins):
        if not foreign_site and origin is not None and _host_in(origin) in settings.hosts:
            raise Refusal(
                403,
                "The Host header does not name the site of this page. Have the proxy pass it on; in nginx: "
                "proxy_set_header Host $http_host;",
            )
        raise Refusal(403, "This request comes from another site. Send it from the page of this service.")


def _host_in(origin: str) -> str:
    """The host of an origin, as ``Settings.hosts`` has it."""
    return _PORT_PATTERN.sub("", origin.lower().partition("://")[2])


def check_token(request: RequestInfo, settings: Settings) -> None:
    """Check the token, where one is needed.

    Raises:
        Refusal: 401.
    """
    if request.wants_page or request.is_probe or not (settings.public or request.writes):
        return
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    right = hmac.compare_digest(token.strip().encode("latin-1"), settings.token.encode())
    if scheme.lower() != "bearer" or not right:
        what = "Requests" if settings.public else "Edits"
        detail = f"{what} need the token that mixtura serve printed, in the header Authorization: Bearer TOKEN."
        raise Refusal(401, detail, {"WWW-Authenticate": 'Bearer realm="mixtura"'})


def check_body(request: RequestInfo) -> None:
    """Check that a body is JSON, or photos in another form where some are expected, and not compressed.

    Raises:
        Refusal: 415.
    """
    if not request.has_body:
        return
    takes_photo = request.path in QUERY_PATHS
    if not (takes_photo and is_photo_type(request.content_type)) and request.content_type != JSON_TYPE:
        kinds = f"{JSON_TYPE}, {FORM_TYPE} or an image/... type" if takes_photo else JSON_TYPE
        raise Refusal(415, f"Send the body with Content-Type {kinds}.")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal(415, "The body must not be compressed. Leave out Content-Encoding.")


async def _accept_host(scope: Scope, receive: Receive, send: Send) -> None:
    """What follows the host check: nothing, the guard goes on."""


async def _refuse_host(message: Message) -> None:
    """Takes the place of the plain text that TrustedHostMiddleware would send."""
    raise Refusal(400, "This service does not answer to that host name. Its operator can add it with --host-name.")


async def _nothing() -> dict[str, Any]:
    return {"type": "http.disconnect"}
