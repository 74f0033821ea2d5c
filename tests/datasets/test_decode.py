"""Every accepted kind of file has one meaning, and every hostile one is refused for a stated reason."""

import errno
import io
import os
import socket
import struct
import subprocess
import sys
import textwrap
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from mixtura.datasets import decode as module
from mixtura.datasets.decode import MAX_BYTES, MAX_PIXELS, MAX_SIDE, decode, read_bytes
from mixtura.errors import BadImage

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photo(width: int = 48, height: int = 32) -> Image.Image:
    """A smooth picture whose four corners differ."""
    row, column = np.mgrid[:height, :width]
    channels = [255 * row / height, 255 * column / width, np.full_like(row, 90)]
    return Image.fromarray(np.stack(channels, 2).astype(np.uint8))


def pixel(image: Image.Image, at=(0, 0)) -> np.ndarray:
    return np.array(image.getpixel(at), int)


def reason(payload) -> str:
    with pytest.raises(BadImage) as caught:
        decode(payload, name="photo")
    assert str(caught.value).startswith("photo: ")
    return caught.value.reason


def png_header(width: int, height: int, depth: int = 1, color: int = 0) -> bytes:
    """A PNG that claims a size and holds almost nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )


# --- accepted ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "BMP", "PPM", "WEBP"])
def test_lossless_formats_keep_every_pixel(kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    assert np.array_equal(decode(encoded(photo(), kind, **options)), photo())


@pytest.mark.parametrize(("kind", "options"), [("JPEG", {"quality": 95}), ("JPEG", {"progressive": True}), ("GIF", {})])
def test_lossy_formats_stay_close(kind, options):
    difference = np.abs(np.array(decode(encoded(photo(), kind, **options)), int) - np.array(photo(), int))
    assert difference.mean() < 8


def test_a_file_its_bytes_and_its_pixels_give_the_same_picture(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encoded(photo(), "PNG"))  # the name lies; the bytes decide
    for payload in (tmp_path / "a.jpg", encoded(photo(), "PNG"), np.array(photo())):
        assert np.array_equal(decode(payload), photo())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_orientation_is_applied_once_and_then_gone(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(photo(), kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    ours = decode(data)
    assert np.array_equal(ours, ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    assert np.array_equal(ImageOps.exif_transpose(ours), ours)
    assert ours.size == ((32, 48) if orientation >= 5 else (48, 32))


@pytest.mark.filterwarnings("ignore:.*(EXIF|Tag data)")
@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0",
        b"Exif\0\0II*\0",
        b"Exif\0\0garbage that is no TIFF header",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x03\0\xff\xff\xff\xff\xff\xff\xff\xff",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x63\0\0\0\0\0\0\0",  # orientation 99
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x04\0\0\0six\0\0\0\0\0",  # orientation is a text
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x05\0\x01\0\0\0\x08\0\0\0\0\0\0\0",  # a fraction, in a loop
    ],
)
def test_broken_exif_means_as_stored(exif):
    data = encoded(photo(), "JPEG", exif=exif)
    assert decode(data).size == photo().size


def test_broken_xmp_means_as_stored():
    assert decode(encoded(photo(), "PNG", pnginfo=None, exif=b"\0\1\2")).size == photo().size
    assert decode(encoded(photo(), "JPEG", xmp=b"<x:xmpmeta><<<&tiff:Orientation='\xff'")).size == photo().size


def test_transparency_lies_over_white():
    half = Image.new("RGBA", (4, 4), (255, 0, 0, 128))
    assert np.abs(pixel(decode(encoded(half, "PNG"))) - [255, 127, 127]).max() <= 1
    assert np.abs(pixel(decode(encoded(half, "WEBP", lossless=True))) - [255, 127, 127]).max() <= 1
    assert tuple(pixel(decode(encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 0)), "PNG")))) == WHITE
    assert np.abs(pixel(decode(encoded(Image.new("LA", (4, 4), (0, 128)), "PNG"))) - 127).max() <= 1


def test_transparent_color_keys_lie_over_white():
    assert tuple(pixel(decode(encoded(Image.new("RGB", (4, 4), RED), "PNG", transparency=RED)))) == WHITE
    assert tuple(pixel(decode(encoded(Image.new("L", (4, 4), 7), "PNG", transparency=7)))) == WHITE
    assert tuple(pixel(decode(encoded(Image.new("L", (4, 4), 8), "PNG", transparency=7)))) == (8, 8, 8)
    palette = Image.new("RGB", (4, 4), BLUE).convert("P", palette=Image.Palette.ADAPTIVE, colors=2)
    used = palette.getpixel((0, 0))
    assert tuple(pixel(decode(encoded(palette, "PNG")))) == BLUE
    assert tuple(pixel(decode(encoded(palette, "PNG", transparency=used)))) == WHITE
    assert tuple(pixel(decode(encoded(palette, "GIF", transparency=used)))) == WHITE


@pytest.mark.parametrize("kind", ["PNG", "PPM"])
def test_sixteen_bits_are_scaled_and_not_clipped(kind):
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16)[None].repeat(2, 0)
    image = Image.fromarray(ramp)
    assert np.array_equal(np.array(decode(encoded(image, kind)))[0, :, 0], np.arange(256))


@pytest.mark.parametrize("kind", ["PNG", "PPM"])
def test_twelve_bits_in_a_file_of_sixteen_are_all_of_the_gray(kind):
    ramp = np.linspace(0, 4095, 256).round().astype(np.uint16)[None].repeat(2, 0)
    assert np.array_equal(np.array(decode(encoded(Image.fromarray(ramp), kind)))[0, :, 0], np.arange(256))
    ramp[0, 0] = 4096  # beyond 12 bits: a dark picture of 16
    assert np.array(decode(encoded(Image.fromarray(ramp), kind)))[1].max() == 16
    assert np.array(decode(encoded(Image.fromarray(np.zeros((4, 4), np.uint16)), kind))).max() == 0


def test_sixteen_bit_color_keys_lie_over_white():
    image = Image.fromarray(np.full((4, 4), 1000, np.uint16))
    data = encoded(image, "PNG", transparency=1000)
    assert tuple(pixel(decode(data))) == WHITE


def test_bits_and_gray_become_rgb():
    assert tuple(pixel(decode(encoded(Image.new("1", (4, 4), 1), "PNG")))) == WHITE
    assert tuple(pixel(decode(encoded(Image.new("1", (9, 4), 1), "PPM")))) == WHITE
    assert tuple(pixel(decode(encoded(Image.new("L", (4, 4), 77), "PPM")))) == (77, 77, 77)


def test_cmyk_is_not_inverted():
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert np.abs(pixel(decode(encoded(red, "JPEG", quality=100))) - RED).max() <= 3


def test_ycck_is_read_as_cmyk():
    data = bytearray(encoded(Image.new("CMYK", (16, 16), (0, 0, 0, 0)), "JPEG", quality=100))
    adobe = data.index(b"Adobe")
    data[adobe + 11] = 2  # the transform flag: the planes are to be taken as YCC and K
    plain = Image.open(io.BytesIO(bytes(data))).convert("RGB")
    assert np.array_equal(decode(bytes(data)), plain)


def test_color_profiles_are_ignored():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    assert np.array_equal(decode(encoded(photo(), "PNG", icc_profile=profile)), photo())
    assert np.array_equal(decode(encoded(photo(), "PNG", icc_profile=b"not a profile")), photo())


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_is_its_first_frame(kind):
    frames = [Image.new("RGB", (8, 8), color) for color in (RED, GREEN, BLUE)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=50, **options)
    assert tuple(pixel(decode(data))) == RED


def test_a_jpeg_with_several_pictures_is_its_first():
    frames = [Image.new("RGB", (16, 16), color) for color in (RED, BLUE)]
    data = encoded(frames[0], "MPO", save_all=True, append_images=frames[1:], quality=95)
    assert np.abs(pixel(decode(data)) - RED).max() <= 3


def test_a_draft_is_smaller_but_never_below_what_was_asked():
    data = encoded(photo(1600, 1200), "JPEG")
    draft = decode(data, draft=100)
    assert draft.size == (200, 150)
    assert decode(data, draft=1200).size == (1600, 1200)
    full = decode(data).resize(draft.size, Image.Resampling.BOX)
    assert np.abs(np.array(draft, int) - np.array(full, int)).mean() < 3
    assert decode(encoded(photo(1600, 1200), "PNG"), draft=100).size == (1600, 1200)


def test_a_large_jpeg_is_read_where_it_can_be_reduced():
    """61 megapixels, as cameras give them: at 1/8 in next to no memory; whole, or progressive, it is too large."""
    large = Image.new("L", (9504, 6336), 90)
    data = encoded(large, "JPEG")
    assert decode(data, draft=224).size == (1188, 792)
    assert reason(data) == "too_large"
    with pytest.raises(BadImage, match="at most 50 megapixels"):
        decode(data, draft=6000)  # more than half of a side
    with pytest.raises(BadImage, match="at most 50 megapixels"):
        decode(encoded(large, "JPEG", progressive=True), draft=224)
    with pytest.raises(BadImage, match="at most 200 megapixels"):
        decode(encoded(Image.new("L", (19_000, 11_000), 90), "JPEG"), draft=224)


def test_threads_decode_the_same():
    files = [encoded(photo(40 + i, 30), kind) for i in range(8) for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP")]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(decode, files))
    assert all(np.array_equal(one, decode(data)) for one, data in zip(together, files, strict=True))


def test_nothing_of_the_metadata_stays():
    data = encoded(photo(), "PNG", dpi=(300, 300), icc_profile=b"x")
    assert decode(data).info == {}


# --- refused -------------------------------------------------------------------------------------------------------


def test_empty(tmp_path):
    (tmp_path / "a.jpg").touch()
    assert reason(tmp_path / "a.jpg") == reason(b"") == reason(np.zeros((0, 4), np.uint8)) == "empty"


@pytest.mark.parametrize(
    "data",
    [
        b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        b"\0" * 4096,
        b"\xff" * 4096,
        b"just text",
        b"\x80\x04\x95pickle",
        b"PK\x03\x04",
        b"MZ",
        b"RIFF\x24\0\0\0WAVEfmt ",
        b"P7\nWIDTH 1\n",
        b"<?xml version='1.0'?><a/>",
    ],
)
def test_not_an_image(data):
    assert reason(data) == "not_an_image"


@pytest.mark.parametrize("kind", ["TIFF", "ICO", "PDF", "JPEG2000", "AVIF"])
def test_formats_outside_the_list_are_named(kind):
    try:
        data = encoded(photo(), kind)
    except (OSError, KeyError):  # this build of Pillow cannot write it; its first bytes are enough
        data = {"JPEG2000": b"\x00\x00\x00\x0cjP  \r\n\x87\n", "AVIF": b"\0\0\0\x1cftypavif"}[kind]
    assert reason(data) == "format_not_allowed"


@pytest.mark.parametrize("kind", ["TGA", "ICO", "SGI", "DDS", "PCX", "EPS"])
def test_a_refused_format_is_called_by_its_own_name(kind):
    name = {"ICO": "an icon", "EPS": "a PostScript", "SGI": "an SGI"}.get(kind, f"a {kind}")
    with pytest.raises(BadImage, match=f"is {name} file, which is not read"):
        decode(encoded(photo(), kind))


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"PK\x03\x04", "an archive"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "a sound"),
        (b"\0\0\0\x18ftypisom", "a video"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
    ],
)
def test_what_lies_under_the_name_of_a_photo_is_named(data, what):
    with pytest.raises(BadImage, match=f"is not an image but {what}"):
        decode(data)


@pytest.mark.parametrize(
    "data", [b"P3\n1 1\n255\n1 2 3\n", b"8BPS\0\1", b"\xff\x0a\0", b"SIMPLE  =", b" <svg xmlns='x'>"]
)
def test_more_formats_outside_the_list(data):
    assert reason(data) == "format_not_allowed"


@pytest.mark.parametrize(
    ("kind", "options"),
    [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {}), ("GIF", {}), ("BMP", {}), ("PPM", {})],
)
@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.9])
def test_truncated_at_any_place(kind, options, share):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind, **options)
    cut = data[: max(16, int(len(data) * share))]
    assert reason(cut) in {"truncated"} | ({"unreadable"} if kind == "PPM" else set())


def test_damaged_inside():
    data = bytearray(encoded(photo(200, 200), "PNG"))
    data[30:34] = b"\xde\xad\xbe\xef"  # the header's checksum
    assert reason(bytes(data)) == "unreadable"


@pytest.mark.parametrize(
    "data",
    [
        png_header(MAX_SIDE + 1, 1),
        png_header(10_000, 5_001),
        png_header(2**31 - 1, 2**31 - 1),
        b"P6\n20001 1\n255\n",
        b"P5\n99999999 99999999\n255\n",
        b"BM" + struct.pack("<IIIIiiHH", 0, 0, 54, 40, 30_000, 30_000, 1, 24) + bytes(24),
        b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b"," + struct.pack("<HHHHBB", 0, 0, 1, 1, 0, 2),
        b"RIFF\xff\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xfe\x3f\0" * 2 + bytes(64),
        b"RIFF\xff\0\0\0WEBPVP8L\xff\0\0\0\x2f" + struct.pack("<I", 0x3FFF | 0x3FFF << 14) + bytes(64),
        b"RIFF\xff\0\0\0WEBPVP8 \xff\0\0\0\0\0\0\x9d\x01\x2a\xff\x3f\xff\x3f" + bytes(64),
    ],
)
def test_bombs_are_refused_by_their_header(data, monkeypatch):
    monkeypatch.setattr(module, "_finish", lambda *_: pytest.fail("it was decoded"))
    assert reason(data) == "too_large"


def test_a_jpeg_header_that_claims_too_much():
    data = bytearray(encoded(photo(), "JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 65000, 65000)
    assert reason(bytes(data)) == "too_large"


def test_pixels_and_bytes_have_the_same_limits(tmp_path):
    assert reason(np.broadcast_to(np.uint8(0), (1, MAX_SIDE + 1))) == "too_large"
    assert reason(np.broadcast_to(np.uint8(0), (7072, 7072))) == "too_large"
    assert 7071 * 7071 <= MAX_PIXELS < 7072 * 7072
    with (tmp_path / "a.jpg").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    assert reason(tmp_path / "a.jpg") == reason(b"\0" * (MAX_BYTES + 1)) == "too_large"


def test_a_jpeg_of_a_thousand_scans_is_refused():
    data = encoded(photo(), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    assert reason(data[:-2] + data[last:-2] * 1000 + b"\xff\xd9") == "too_large"
    # neither a thumbnail in EXIF nor a video behind the picture counts
    trailing = data + b"\xff\xda\0\x02" * 1000
    assert decode(trailing).size == photo().size
    assert decode(encoded(photo(), "JPEG", exif=b"Exif\0\0" + b"\xff\xda\0\x02" * 1000)).size == photo().size


def with_text_bomb(png: bytes) -> bytes:
    body = b"Comment\0\0" + zlib.compress(b"\0" * (256 << 20), 9)
    return (
        png[:33]
        + struct.pack(">I", len(body))
        + b"zTXt"
        + body
        + struct.pack(">I", zlib.crc32(b"zTXt" + body))
        + png[33:]
    )


def test_memory_stays_small_on_bombs(tmp_path):
    """A 177-megapixel PNG of 22 kB, a WebP that claims a full canvas and 256 MiB of packed text cost no memory."""
    row = b"\0" + b"\xff" * (13300 // 8 + 1)
    body = zlib.compress(row * 13300, 9)
    header = png_header(13300, 13300)
    at = header.index(b"IDAT") - 4
    chunk = struct.pack(">I", len(body)) + b"IDAT" + body + struct.pack(">I", zlib.crc32(b"IDAT" + body))
    (tmp_path / "bomb.png").write_bytes(header[:at] + chunk + header[-12:])
    (tmp_path / "bomb.webp").write_bytes(b"RIFF\xff\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xfe\x3f\0" * 2 + bytes(64))
    (tmp_path / "text.png").write_bytes(with_text_bomb(encoded(photo(), "PNG")))
    code = """
        import resource, sys
        from pathlib import Path
        from mixtura.datasets.decode import decode
        from mixtura.errors import BadImage
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for name in sys.argv[1:]:
            try: decode(Path(name))
            except BadImage as error: assert error.reason in ("too_large", "unreadable"), error
            else: raise SystemExit(f"{name} was decoded")
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < 20_000, f"{grown} KiB"
    """
    paths = [str(tmp_path / name) for name in ("bomb.png", "bomb.webp", "text.png")]
    environment = os.environ | {"PYTHONPATH": str(Path(module.__file__).parents[2])}
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *paths]
    subprocess.run(command, check=True, env=environment, timeout=60)


@pytest.mark.timeout(20)
def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "broken.jpg").symlink_to("nowhere.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.jpg"))
    names = ["pipe.jpg", "folder.jpg", "loop.jpg", "broken.jpg", "s.jpg", "missing.jpg", "x" * 300, "nul\0.jpg"]
    for path in [*(tmp_path / name for name in names), Path("/dev/zero"), Path("/dev/null")]:
        assert reason(path) == "not_a_file", path


def test_what_may_not_be_read_is_unreadable(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "no")

    (tmp_path / "a.jpg").write_bytes(encoded(photo(), "PNG"))
    monkeypatch.setattr(os, "open", refuse)
    assert reason(tmp_path / "a.jpg") == "unreadable"


def test_messages_print_whatever_the_name(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9\nred\x1b[31m.jpg")
    path.write_bytes(b"text")
    with pytest.raises(BadImage) as caught:
        decode(path)
    assert "caf%E9%0Ared%1B[31m.jpg: is not an image" in str(caught.value)
    assert str(caught.value).isprintable()
    assert read_bytes(path) == b"text"


@pytest.mark.filterwarnings("ignore")
def test_a_fuzzed_file_is_decoded_or_refused_and_nothing_else():
    rng = np.random.default_rng(0)
    kinds = [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {}), ("GIF", {}), ("BMP", {})]
    for kind, options in kinds:
        original = encoded(photo(), kind, **options)
        for _ in range(100):
            data = bytearray(original)
            for place in rng.integers(0, len(data), rng.integers(1, 12)):
                data[place] = rng.integers(256)
            try:
                assert decode(bytes(data), name="photo").mode == "RGB"
            except BadImage as error:
                assert error.reason in {"not_an_image", "truncated", "unreadable", "too_large", "format_not_allowed"}
