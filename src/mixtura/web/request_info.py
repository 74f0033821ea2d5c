"""What the guards know of a request before anything reads it."""

import re
from dataclasses import dataclass

from starlette.types import Scope

from mixtura.web.problems import Refusal
from mixtura.web.rate_limit import client_of

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})  # of RFC 9110
QUERY_PATHS = frozenset({"/v1/classify", "/v1/search"})
"""What is asked by POST and changes nothing that anybody sees."""

HEALTH_PATH = "/healthz"
PROBE_PATHS = frozenset({HEALTH_PATH, "/readyz"})
"""What supervisors ask, by whatever name or address they know; the answer is "ok" or not, and nothing else."""

PAGE_PATHS = frozenset({"/", "/docs"})
STATIC_PREFIX = "/static/"
SINGLE_HEADERS = frozenset({"host", "authorization", "origin", "content-type", "sec-fetch-site"})
"""Headers that decide who is answered: sent twice, they would mean two things."""

_LENGTH_PATTERN = re.compile(r"[0-9]{1,20}")


@dataclass(frozen=True)
class RequestInfo:
    """The head of a request: method, decoded path, headers by lower-case name, who sends it, and its size in bytes."""

    method: str
    path: str
    headers: dict[str, str]
    client: str
    size: int

    @classmethod
    def of(cls, scope: Scope) -> "RequestInfo":
        """The request of an ASGI scope.

        Raises:
            Refusal: 400 if a header of ``SINGLE_HEADERS`` occurs twice.
        """
        headers: dict[str, str] = {}
        size = len(scope.get("raw_path", b"")) + len(scope["query_string"])
        for raw_name, raw_value in scope["headers"]:
            name, size = raw_name.decode("latin-1"), size + len(raw_name) + len(raw_value)
            if name in headers and name in SINGLE_HEADERS:
                raise Refusal(400, f"The header {name} occurs twice. Send it once.")
            headers[name] = raw_value.decode("latin-1").strip()
        client = scope.get("client")
        return cls(scope["method"], scope["path"], headers, client_of(client[0]) if client else "unknown", size)

    @property
    def is_safe(self) -> bool:
        """Whether its method only reads."""
        return self.method in SAFE_METHODS

    @property
    def writes(self) -> bool:
        """Whether it may change the catalog or the journal."""
        return not self.is_safe and self.path not in QUERY_PATHS

    @property
    def wants_page(self) -> bool:
        """Whether it asks for a file of the web page, which is the same for everybody."""
        return self.is_safe and (self.path in PAGE_PATHS or self.path.startswith(STATIC_PREFIX))

    @property
    def is_probe(self) -> bool:
        """Whether it only asks if the service lives or is ready."""
        return self.is_safe and self.path in PROBE_PATHS

    @property
    def origins(self) -> set[str]:
        """The origins that a page of this service may have."""
        host = self.headers.get("host", "").lower()
        return {f"http://{host}", f"https://{host}"}

    @property
    def content_type(self) -> str:
        """The kind of the body, without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def content_length(self) -> int | None:
        """The announced bytes of the body."""
        value = self.headers.get("content-length", "")
        return int(value) if _LENGTH_PATTERN.fullmatch(value) else None

    @property
    def has_body(self) -> bool:
        """Whether a body follows."""
        return bool(self.content_length) or "transfer-encoding" in self.headers
