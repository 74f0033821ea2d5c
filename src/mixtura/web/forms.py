"""Photos as files of an HTML form (multipart/form-data, RFC 7578), read by python-multipart and kept in memory."""

from email.message import Message
from email.utils import collapse_rfc2231_value
from typing import Any

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from mixtura.web.problems import Refusal
from mixtura.web.settings import MAX_IMAGES

FORM_TYPE = "multipart/form-data"
MAX_NAME_LENGTH = 60  # characters of a field's name in a message


def files_of(body: bytes, content_type: str) -> list[bytes]:
    """The files of a form, in their order.

    Args:
        body: of the request.
        content_type: the whole header, with the boundary.

    Raises:
        Refusal: 415 for what is no form, 422 for one that is malformed, cut off, too long, or has other fields.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise Refusal(415, f"Content-Type {FORM_TYPE} names no boundary. Let your client set this header.")
    # Counted before parsing, which takes a microsecond for each boundary, and a body may be made of nothing else.
    count = (b"\r\n" + body).count(b"\r\n--" + boundary) - 1  # the last one ends the form
    if count > MAX_IMAGES:
        raise Refusal(422, f"The form has {count} parts. Send at most {MAX_IMAGES} photos at a time.")
    form = _Form()
    try:
        MultipartParser(boundary, form.callbacks()).write(body)
    except FormParserError:
        raise _malformed(form.parts) from None
    if not form.parts:
        raise _malformed(0)
    if not form.is_complete:
        raise Refusal(422, "The form ends before its last boundary. Send it again.")
    return form.files


def _malformed(part: int) -> Refusal:
    """The refusal of a form in whose part the parser stopped; 0 is before the first."""
    if not part:
        return Refusal(415, f"The body is not the form that Content-Type {FORM_TYPE} announces: it has no part.")
    return Refusal(422, f"Part {part} of the form is malformed. Let your client build the form.")


class _Form:
    """What the parser has found so far; each ``on_...`` is one of its events."""

    def __init__(self) -> None:
        self.files: list[bytes] = []
        self.parts, self.is_complete = 0, False
        self._head, self._field, self._value, self._content = Message(), b"", b"", b""

    def callbacks(self) -> Any:
        """Events of the parser by name, without the prefix."""
        return {name: getattr(self, name) for name in dir(self) if name.startswith("on_")}

    def on_part_begin(self) -> None:
        self.parts, self._head, self._content = self.parts + 1, Message(), b""

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        self._head[self._field.decode("ascii")] = self._value.decode("utf-8", "replace")
        self._field = self._value = b""

    def on_headers_finished(self) -> None:
        # The standard library reads filename*= too, the only name that some clients send where it is not ASCII.
        file_name, name = (self._head.get_param(key, "", "content-disposition") for key in ("filename", "name"))
        kind = self._head.get_content_type()
        if not file_name and not kind.startswith("image/") and kind != "application/octet-stream":
            name = collapse_rfc2231_value(name)
            raise Refusal(
                422,
                f"The field {name[:MAX_NAME_LENGTH]!r} of the form is not a file. "
                "Send photos as files, and options in the address.",
            )

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._content += data[start:end]

    def on_part_end(self) -> None:
        self.files.append(self._content)

    def on_end(self) -> None:
        self.is_complete = True
