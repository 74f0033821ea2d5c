"""Decode a payload (a file, its bytes, or pixels) into one RGB picture.

Hostile files arrive here. Anything that would cost too much memory or time is refused by its header, before decoding:

- at most 64 MiB of file, 50 megapixels, 20,000 pixels a side; 200 megapixels of a JPEG that may be decoded at a
  reduced size, unless it is progressive and has to be in memory as a whole;
- regular files only: no pipes, devices or folders;
- six formats, recognized by their first bytes, never by file name: JPEG, PNG, WebP, GIF, BMP, binary PNM.

Every accepted file is decoded the same way: EXIF orientation applied once (broken EXIF: as stored), the first frame of
an animation, transparency over white, 16 bits scaled to 8 (12 bits in a 16-bit file too: no value reaches 4,096),
CMYK and gray as RGB. Embedded color profiles are ignored.
Every failure is a :class:`~mixtura.errors.BadImage` with a reason code.
"""

import errno
import os
import re
import stat
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.WebPImagePlugin import WebPImageFile

from mixtura.datasets.paths import readable
from mixtura.errors import BadImage, BadItem
from mixtura.files import NO_SUCH_FILE
from mixtura.formats import with_article

MAX_BYTES = 64 * 2**20
MAX_PIXELS = 50_000_000
MAX_REDUCED_PIXELS = 200_000_000  # of a JPEG that is decoded at 1/2 or less
MAX_SIDE = 20_000
FULL_12_BITS, FULL_16_BITS = 2**12 - 1, 2**16 - 1  # white; scientific and medical cameras give 12 bits
MAX_SCANS = 100  # passes of a progressive JPEG; encoders write about ten, an attack writes thousands

Pixels = UInt8[np.ndarray, "H W"] | UInt8[np.ndarray, "H W 3"]
Payload = Path | bytes | Pixels

# We call the plugins directly: Image.open would warn about large images before we can refuse them, and would pass a
# JPEG with several pictures to another plugin.
_READERS: dict[str, tuple[re.Pattern[bytes], type[ImageFile]]] = {
    "JPEG": (re.compile(rb"\xff\xd8\xff"), JpegImageFile),
    "PNG": (re.compile(rb"\x89PNG\r\n\x1a\n"), PngImageFile),
    "WebP": (re.compile(rb"RIFF....WEBP", re.DOTALL), WebPImageFile),
    "GIF": (re.compile(rb"GIF8[79]a"), GifImageFile),
    "BMP": (re.compile(rb"BM"), BmpImageFile),
    "PNM": (re.compile(rb"P[456]\s"), PpmImageFile),
}
PHOTO_FORMATS = tuple(_READERS)

_REFUSED_FORMATS: dict[str, re.Pattern[bytes]] = {
    "TIFF": re.compile(rb"II[*+]\x00|MM\x00[*+]"),
    "HEIC or AVIF": re.compile(rb"....ftyp(hei|hev|mif|msf|avi)", re.DOTALL),
    "JPEG 2000": re.compile(rb"\x00\x00\x00\x0cjP|\xff\x4f\xff\x51"),
    "JPEG XL": re.compile(rb"\xff\x0a|\x00\x00\x00\x0cJXL"),
    "Photoshop": re.compile(rb"8BPS"),
    "icon": re.compile(rb"\x00\x00[\x01\x02]\x00(?!\x00\x00)"),
    "TGA": re.compile(rb"\x00\x00[\x02\x03\x0a\x0b]\x00{5}.{8}[\x08\x0f\x10\x18\x20]", re.DOTALL),
    "SGI": re.compile(rb"\x01\xda[\x00\x01][\x01\x02]"),
    "DDS": re.compile(rb"DDS \x7c"),
    "PCX": re.compile(rb"\x0a[\x00\x02-\x05]\x01[\x01\x02\x04\x08]"),
    "OpenEXR": re.compile(rb"\x76\x2f\x31\x01"),
    "Radiance HDR": re.compile(rb"#\?R(ADIANCE|GBE)"),
    "GIMP": re.compile(rb"gimp xcf"),
    "camera raw": re.compile(rb"FUJIFILMCCD-RAW|....ftypcrx|IIRO|IIRS", re.DOTALL),
    "DICOM": re.compile(rb".{128}DICM", re.DOTALL),
    "PostScript": re.compile(rb"%!PS"),
    "PDF": re.compile(rb"%PDF"),
    "SVG": re.compile(rb"\s*(<\?xml[^>]*>\s*)?<svg"),
    "FITS": re.compile(rb"SIMPLE  ="),
    "text PNM": re.compile(rb"P[123]\s"),
}

# What is often found under the name of a photo.
_OTHER_FILES: dict[str, re.Pattern[bytes]] = {
    "a web page": re.compile(rb"\s*(<!--.*?-->\s*)?<(!doctype html|html)", re.DOTALL | re.IGNORECASE),
    "an archive": re.compile(rb"PK\x03\x04|Rar!|7z\xbc\xaf|\x1f\x8b|BZh|\xfd7zXZ"),
    "a sound": re.compile(rb"RIFF....WAVE|fLaC|OggS|ID3|....ftypM4A|FORM....AIF", re.DOTALL),
    "a video": re.compile(rb"....ftyp|....moov|RIFF....AVI |\x1a\x45\xdf\xa3", re.DOTALL),
    "a pointer of Git LFS to a file that was not fetched": re.compile(rb"version https://git-lfs"),
}

_EXIF_ORIENTATION = 0x0112
_EXIF_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(payload: Payload, *, draft: int | None = None, name: str | None = None) -> Image.Image:
    """Return the picture in a payload, as RGB without metadata.

    Args:
        payload: a file, its bytes, or pixels (H W or H W 3).
        draft: pixels; a larger JPEG may be decoded at 1/2, 1/4 or 1/8, with no side below this. Much faster.
        name: name of the image in messages; the path by default.

    Raises:
        BadImage: the image cannot be decoded safely; ``reason`` says why.
    """
    if isinstance(payload, np.ndarray):
        return _from_pixels(payload, name or "image")
    shown = name or (readable(str(payload)) if isinstance(payload, Path) else "image")
    return _from_bytes(read_bytes(payload, name=shown), shown, draft)


def read_bytes(payload: Path | bytes, *, name: str | None = None, wrong: type[BadItem] = BadImage) -> bytes:
    """Return the bytes of a payload if it is a regular file of reasonable size.

    Raises:
        BadItem: not a regular file, not readable, empty, or above 64 MiB; raised as class ``wrong``.
    """
    shown = name or (readable(str(payload)) if isinstance(payload, Path) else "item")
    data = _read_file(payload, shown, wrong) if isinstance(payload, Path) else payload
    if not data:
        raise wrong(f"{shown}: the file is empty (0 bytes). Export or copy it again.", "empty")
    if len(data) > MAX_BYTES:
        raise wrong(f"{shown}: the file is above {MAX_BYTES >> 20} MiB. Save it smaller.", "too_large")
    return data


def _read_file(path: Path, shown: str, wrong: type[BadItem]) -> bytes:
    # Checked before opening, because opening a device can have effects, and again after, because names can be swapped.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        _require_regular(path.stat().st_mode, shown, wrong)
        with os.fdopen(os.open(path, flags), "rb") as file:
            _require_regular(os.fstat(file.fileno()).st_mode, shown, wrong)
            return file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        code = (error.errno if isinstance(error, OSError) else None) or errno.ENOENT
        reason = "not_a_file" if code in NO_SUCH_FILE else "unreadable"
        said = os.strerror(code).lower()
        raise wrong(f"{shown}: cannot be read ({said}). Check the path and its permissions.", reason) from error


def _require_regular(mode: int, shown: str, wrong: type[BadItem]) -> None:
    if not stat.S_ISREG(mode):
        raise wrong(f"{shown}: is a folder, pipe, socket or device. Give a regular file.", "not_a_file")


def _from_pixels(pixels: Pixels, shown: str) -> Image.Image:
    if pixels.size == 0:
        raise BadImage(f"{shown}: the array of shape {pixels.shape} holds no pixels.", "empty")
    _check_size((pixels.shape[1], pixels.shape[0]), shown)
    return Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB")


def _from_bytes(data: bytes, shown: str, draft: int | None) -> Image.Image:
    kind = _sniff(data, shown)
    try:
        _check_before_open(kind, data, shown)
        with _READERS[kind][1](BytesIO(data)) as image:
            reducible = draft is not None and kind == "JPEG" and "progressive" not in image.info
            _check_size(image.size, shown, MAX_REDUCED_PIXELS if reducible else MAX_PIXELS)
            if draft is not None:
                image.draft(None, (draft, draft))
                _check_size(image.size, shown)
            return _finish(image)
    except BadImage:
        raise
    except Exception as error:  # a decoder may raise anything on hostile bytes, and none of it may end a run
        if _ends_early(kind, data, error):
            message = f"{shown}: the {kind} file ends before the picture does. Copy or download it again."
            raise BadImage(message, "truncated") from error
        message = f"{shown}: the {kind} file is damaged ({readable(str(error))[:120]}). Export it again."
        raise BadImage(message, "unreadable") from error


def _sniff(data: bytes, shown: str) -> str:
    for kind, (magic, _) in _READERS.items():
        if magic.match(data):
            return kind
    for kind, magic in _REFUSED_FORMATS.items():
        if magic.match(data[:1024]):
            message = f"{shown}: is {with_article(kind)} file, which is not read. Save it as JPEG or PNG."
            raise BadImage(message, "format_not_allowed")
    what = next((what for what, magic in _OTHER_FILES.items() if magic.match(data[:1024])), "")
    said = f"is not an image but {what}" if what else "is not an image, whatever its name says"
    raise BadImage(f"{shown}: {said}. Known: {', '.join(PHOTO_FORMATS)}.", "not_an_image")


def _check_before_open(kind: str, data: bytes, shown: str) -> None:
    """Run the checks that would be too late after opening."""
    if kind == "WebP":  # its decoder reserves the whole canvas when it opens
        _check_size(_webp_canvas(data), shown)
    if kind == "JPEG" and (scans := _jpeg_scans(data)) > MAX_SCANS:
        message = f"{shown}: the JPEG has more than {MAX_SCANS} scans (counted {scans}). Save it as an ordinary JPEG."
        raise BadImage(message, "too_large")


def _check_size(size: tuple[int, int], shown: str, most: int = MAX_PIXELS) -> None:
    width, height = size
    if max(size) > MAX_SIDE or width * height > most:
        raise BadImage(
            f"{shown}: {width:,} x {height:,} pixels; at most {most // 10**6} megapixels and {MAX_SIDE:,} a side "
            "are read. Save it smaller.",
            "too_large",
        )


def _webp_canvas(data: bytes) -> tuple[int, int]:
    """Return width and height from the first chunk: extended, lossless or lossy. Zero if the header is truncated."""
    chunk = data[12:16]
    if chunk == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if chunk == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF


def _jpeg_scans(data: bytes) -> int:
    """Count the scans of the first picture; counting stops above the limit.

    Segments are skipped, so thumbnails in EXIF and a video after the picture do not count.
    """
    next_marker = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
    scans, found = 0, next_marker.search(data, 2)
    while found and data[found.end() - 1] != 0xD9 and scans <= MAX_SCANS:
        scans += data[found.end() - 1] == 0xDA
        length = int.from_bytes(data[found.end() : found.end() + 2], "big")
        found = next_marker.search(data, found.end() + max(length, 2))
    return scans


def _finish(image: ImageFile) -> Image.Image:
    image.load()
    turn = _EXIF_TURNS.get(_orientation(image))
    rgb = _to_rgb(image)
    upright = rgb if turn is None else rgb.transpose(turn)
    upright.info.clear()  # the orientation must not be applied twice
    return upright


def _orientation(image: Image.Image) -> Any:
    try:
        value = image.getexif().get(_EXIF_ORIENTATION, 1)
        return value if isinstance(value, int) else 1
    except Exception:  # a photo with broken EXIF is still a photo
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return _eight_bits(image).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale a gray picture of 16 bits, or of 12 bits in a 16-bit file, to 8; Pillow's own conversion would clip it."""
    wide = np.asarray(image).astype(np.int32)
    full = FULL_12_BITS if wide.max(initial=0) <= FULL_12_BITS else FULL_16_BITS
    narrow = ((255 * wide + full // 2) // full).clip(0, 255).astype(np.uint8)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        narrow[wide == clear] = 255
    return Image.fromarray(narrow)


def _ends_early(kind: str, data: bytes, error: Exception) -> bool:
    if "truncated" in str(error).lower():
        return True
    complete = {
        "JPEG": b"\xff\xd9" in data[-1024:],
        "PNG": b"IEND" in data[-1024:],
        "WebP": len(data) >= 8 + int.from_bytes(data[4:8], "little"),
        "GIF": data.rstrip(b"\0").endswith(b";"),
        "BMP": len(data) >= int.from_bytes(data[2:6], "little"),
    }
    return not complete.get(kind, False)
