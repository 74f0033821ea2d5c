"""What the guards see of a request before anything reads it."""

import re
from dataclasses import dataclass

from starlette.types import Scope

from mixtura.web.limits import client_of
from mixtura.web.problems import Refusal

READS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})  # the safe methods of RFC 9110
PHOTOS = frozenset({"/v1/classify", "/v1/search"})
"""What is asked by POST and changes nothing that anybody sees."""

_HOST = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9._-]{1,253})(:[0-9]{1,5})?")
_LENGTH = re.compile(r"[0-9]{1,20}")


@dataclass(frozen=True)
class Seen:
    """One request: its method, its path as it was decoded, its headers by lower-case name, and who asks."""

    method: str
    path: str
    headers: dict[str, str]
    client: str
    size: int

    @property
    def writes(self) -> bool:
        """Whether it may change the catalog or the journal."""
        return self.method not in READS and self.path not in PHOTOS

    @property
    def host(self) -> str:
        """The name that the client has called, without the port; empty where it is no name."""
        found = _HOST.fullmatch(self.netloc)
        return found[1] if found else ""

    @property
    def netloc(self) -> str:
        """The name with its port."""
        return self.headers.get("host", "").lower()

    @property
    def content_type(self) -> str:
        """The kind of the body, without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def content_length(self) -> int | None:
        """The announced bytes of the body."""
        value = self.headers.get("content-length", "")
        return int(value) if _LENGTH.fullmatch(value) else None

    @property
    def has_body(self) -> bool:
        """Whether a body follows."""
        return bool(self.content_length) or "transfer-encoding" in self.headers


def seen(scope: Scope) -> Seen:
    """The request of an ASGI scope.

    Raises:
        Refusal: a header that may occur once occurs twice.
    """
    headers: dict[str, str] = {}
    size = len(scope.get("raw_path", b"")) + len(scope["query_string"])
    for raw_name, raw_value in scope["headers"]:
        name, size = raw_name.decode("latin-1"), size + len(raw_name) + len(raw_value)
        if name in headers and name in {"host", "authorization", "origin", "content-type", "sec-fetch-site"}:
            raise Refusal(400, f"The header {name} occurs twice. Send it once.")
        headers[name] = raw_value.decode("latin-1").strip()
    client = scope.get("client")
    return Seen(scope["method"], scope["path"], headers, client_of(client[0]) if client else "unknown", size)
