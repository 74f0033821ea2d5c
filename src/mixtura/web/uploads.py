"""The forms in which photos arrive: as they are, as base64 in JSON, or as files of an HTML form."""

import base64
import binascii
import re

from pydantic import ValidationError

from mixtura.web import schemas
from mixtura.web.forms import FORM_TYPE, files_of
from mixtura.web.problems import Refusal, place_of

JSON_TYPE = "application/json"
UNNAMED_TYPES = frozenset({"", "application/octet-stream", "application/x-www-form-urlencoded"})
"""Content types that say nothing, the last since curl sends it for any --data: the first bytes of the body do."""

_DATA_URL = re.compile(r"data:(?P<kind>[^,]{0,200}),", re.IGNORECASE)
_BLANKS = re.compile(r"[\t\n\r ]+")
_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}")
_URL_ALPHABET = str.maketrans("-_", "+/")


def is_photo_type(kind: str) -> bool:
    """Whether a content type may be that of photos that are not in JSON; it is in lower case, without parameters."""
    return kind.startswith("image/") or kind in UNNAMED_TYPES or kind == FORM_TYPE


def photos_in(body: bytes, content_type: str) -> list[bytes]:
    """The photos of a request that asks about some.

    Args:
        body: of the request.
        content_type: the whole header, with parameters.

    Raises:
        Refusal: 415 for JSON without its content type, 422 for what cannot be read.
    """
    if not body:
        raise Refusal(422, "The body is empty. Send a photo, or JSON with images.")
    kind = content_type.partition(";")[0].strip().lower()
    if kind == JSON_TYPE:
        return _of_json(body)
    if kind == FORM_TYPE:
        return files_of(body, content_type)
    if kind in UNNAMED_TYPES and body.lstrip(b"\t\n\r ")[:1] in {b"{", b"["}:
        raise Refusal(415, f"This looks like JSON. Send it with Content-Type {JSON_TYPE}.")
    return [body]


def decoded(images: list[str]) -> list[bytes]:
    """The bytes of photos that came as base64: with line breaks or without, padded or not, in either alphabet.

    Data URLs are read too.

    Raises:
        Refusal: 422; it names the first photo that is none of these, counted from one.
    """
    return [_decoded(image, number) for number, image in enumerate(images, 1)]


def _decoded(image: str, number: int) -> bytes:
    head = _DATA_URL.match(image)
    if head and not head["kind"].lower().endswith(";base64"):
        raise Refusal(422, f"images, photo {number}: a data: URL that is not base64. Send the bytes as base64.")
    text = _BLANKS.sub("", image[head.end() :] if head else image).translate(_URL_ALPHABET)
    if not _BASE64.fullmatch(text):
        raise Refusal(422, f"images, photo {number}: not base64. Encode the bytes of each file.")
    digits = text.rstrip("=")
    try:
        return base64.b64decode(digits + "=" * (-len(digits) % 4))
    except binascii.Error:
        raise Refusal(422, f"images, photo {number}: not base64: its end is missing.") from None


def _of_json(body: bytes) -> list[bytes]:
    try:
        given = schemas.Photos.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        raise Refusal(422, f"{place_of(first['loc']) or 'body'}: {first['msg']}.") from None
    return decoded(given.images)
