"""The forms in which photos arrive: as they are, as base64 in JSON, or as files of an HTML form."""

import base64
import binascii
import re

from pydantic import ValidationError

from mixtura.web import schemas
from mixtura.web.problems import Refusal, place_of
from mixtura.web.settings import MAX_IMAGES

JSON_TYPE, FORM_TYPE = "application/json", "multipart/form-data"
UNNAMED_TYPES = frozenset({"", "application/octet-stream"})
"""Content types that say nothing: the first bytes of the body do."""

_DATA_URL = re.compile(r"data:(?P<kind>[^,]{0,200}),", re.IGNORECASE)
_BLANKS = re.compile(r"[\t\n\r ]+")
_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}")
_URL_ALPHABET = str.maketrans("-_", "+/")
_BOUNDARY = re.compile(r"""boundary=("?)(?P<boundary>[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-])\1(;|$)""")
_FILE = re.compile(rb"""content-disposition:[^\r\n]*;\s*filename\*?=|content-type:\s*(image/|application/octet)""")
_FIELD = re.compile(rb"""content-disposition:[^\r\n]*[; ]name="?(?P<name>[^";\r\n]{0,60})""")


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
        return _of_form(body, content_type)
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


def _of_form(body: bytes, content_type: str) -> list[bytes]:
    """The files of a form (RFC 7578)."""
    found = _BOUNDARY.search(content_type)
    if found is None:
        raise Refusal(415, f"Content-Type {FORM_TYPE} names no boundary. Let your client set this header.")
    delimiter = b"\r\n--" + found["boundary"].encode()
    body = b"\r\n" + body
    count = body.count(delimiter) - 1  # the last one ends the form
    if count < 1:
        raise Refusal(415, f"The body is not the form that Content-Type {FORM_TYPE} announces: it has no part.")
    if count > MAX_IMAGES:
        raise Refusal(422, f"The form has {count} parts. Send at most {MAX_IMAGES} photos at a time.")
    _, *parts, end = body.split(delimiter)
    if not end.startswith(b"--"):
        raise Refusal(422, "The form ends before its last boundary. Send it again.")
    return [_file(part) for part in parts]


def _file(part: bytes) -> bytes:
    """The bytes of one file of a form."""
    head, blank, content = part.partition(b"\r\n\r\n")
    head = head[:2048].replace(b"\r\n\t", b" ").replace(b"\r\n ", b" ")
    if not blank or not _FILE.search(head.lower()):
        named = _FIELD.search(head.lower())
        name = named["name"].decode("ascii", "replace") if named else ""
        raise Refusal(
            422, f"The field {name!r} of the form is not a file. Send photos as files, and options in the address."
        )
    return content
