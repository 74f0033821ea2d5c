"""Classify photos with the graphs beside this file; needs only numpy, onnxruntime and Pillow.

    python run.py photo.jpg other.png
    python run.py photo.jpg --json
    python run.py features.npy

Each line holds file, verdict (match, unsure, unknown), label, probability, typicality and reason, separated by tabs.
Probability says which class it is, if it is one of them; typicality says whether it is one of them: the share of
genuine items that look at least this unusual. A .npy file holds vectors of the encoder, N x D. In a program:

    from run import Runner
    runner = Runner("folder")
    answers = runner.photos(["photo.jpg"])

Written by mixtura export. Exit codes: 2 invalid option, 65 damaged data, 66 a file that is missing or not a photo.
"""

import argparse
import hashlib
import json
import re
import stat
import sys
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

try:
    import numpy as np
    import onnxruntime
    from PIL import Image
    from PIL.BmpImagePlugin import BmpImageFile
    from PIL.GifImagePlugin import GifImageFile
    from PIL.JpegImagePlugin import JpegImageFile
    from PIL.PngImagePlugin import PngImageFile
    from PIL.PpmImagePlugin import PpmImageFile
    from PIL.WebPImagePlugin import WebPImageFile
except ImportError as error:
    sys.exit(f"run.py: {error}. Run: pip install numpy onnxruntime pillow")

from mixtura.scores.verdict import judge  # mixtura export writes the rule itself in place of this line

BATCH = 32
MAX_NUMBERS = 3 << 24  # of the photos in one call of the encoder: 4 of 2048 x 2048 pixels
MAX_BYTES = 64 * 2**20
MAX_PIXELS, MAX_SIDE, MAX_SCANS = 50_000_000, 20_000, 100
MAX_REDUCED_PIXELS = 200_000_000  # of a JPEG that is decoded at 1/2 or less
READERS = (
    (re.compile(rb"\xff\xd8\xff"), JpegImageFile),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), PngImageFile),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), WebPImageFile),
    (re.compile(rb"GIF8[79]a"), GifImageFile),
    (re.compile(rb"BM"), BmpImageFile),
    (re.compile(rb"P[456]\s"), PpmImageFile),
)
TURNS = dict(enumerate((0, 3, 1, 5, 4, 6, 2), start=2))
"""The transpose that each EXIF orientation needs, by Pillow's number of ``Transpose``."""


class Refused(Exception):
    """Input that cannot be used; the message says what is wrong and what to do, the code is the exit code."""

    def __init__(self, message: str, code: int = 66) -> None:
        super().__init__(message)
        self.code = code


class Runner:
    """The graphs of an export folder.

    Args:
        folder: written by mixtura export.

    Raises:
        Refused: a file is missing, or not the one that was exported.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            self.config: dict[str, Any] = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
            self.classes: list[str] = self.config["classes"]
            layout, hashes = self.config["layout"], self.config["sha256"]
        except FileNotFoundError as error:
            raise Refused(f"{folder} holds no config.json. Keep the files of the export together.") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Refused(f"{folder}: config.json is damaged ({error}). Export again.", 65) from error
        if layout != 1:
            raise Refused(f"{folder} has layout {layout}; this program reads 1. Export again.", 65)
        self.head = self._session("head.onnx", hashes)
        self.encoder = self._session("encoder.onnx", hashes) if self.config["encoder"]["input"] else None

    def _session(self, name: str, hashes: dict[str, str]) -> onnxruntime.InferenceSession:
        try:
            data = (self.folder / name).read_bytes()
        except OSError as error:
            raise Refused(f"{self.folder / name}: cannot be read ({error.strerror}). Export again.") from error
        if hashlib.sha256(data).hexdigest() != hashes.get(name):
            raise Refused(f"{self.folder / name}: is not the file that was exported. Export again.", 65)
        return onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])

    def photos(self, paths: Sequence[str | Path]) -> list[dict[str, Any]]:
        """One answer per photo, in order; an unreadable photo gives only ``id`` and ``error``."""
        answers: list[dict[str, Any]] = []
        for start in range(0, len(paths), BATCH):
            answers += self._batch([Path(path) for path in paths[start : start + BATCH]])
        return answers

    def _batch(self, paths: list[Path]) -> list[dict[str, Any]]:
        found: dict[int, dict[str, Any]] = {}
        prepared: dict[int, np.ndarray] = {}
        for place, path in enumerate(paths):
            try:
                prepared[place] = self.prepare(path)
            except Refused as error:
                found[place] = {"id": str(path), "error": str(error)}
        if prepared:
            vectors = self.encode(np.stack(list(prepared.values())))
            names = [str(paths[place]) for place in prepared]
            found |= dict(zip(prepared, self.answers(vectors, names), strict=True))
        return [found[place] for place in range(len(paths))]

    def prepare(self, path: Path) -> np.ndarray:
        """A photo as encoder input: 3 x H x W, bytes.

        Raises:
            Refused: the file is no photo, or the model was made of features.
        """
        if self.encoder is None:
            raise Refused(f"{path}: the model was made of features, not of photos. Give a .npy file of vectors.", 2)
        image = decode(path, self.config["encoder"]["draft"])
        for step in self.config["encoder"]["steps"]:
            image = STEPS[step["step"]](image, step)
        return np.asarray(image).transpose(2, 0, 1)

    def encode(self, prepared: np.ndarray) -> np.ndarray:
        """The features of prepared photos, N x D."""
        assert self.encoder is not None
        size = max(1, MAX_NUMBERS // prepared[0].size)
        parts = [prepared[start : start + size] for start in range(0, len(prepared), size)]
        return np.concatenate([np.asarray(self.encoder.run(["features"], {"photos": part})[0]) for part in parts])

    def answers(self, vectors: np.ndarray, names: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """One answer per vector.

        Raises:
            Refused: vectors of another width, or not all numbers.
        """
        dimension = self.config["dimension"]
        if vectors.ndim != 2 or vectors.shape[1] != dimension or vectors.dtype.kind not in "fiu":
            raise Refused(f"The model takes N x {dimension} numbers, and got {vectors.dtype} {vectors.shape}.", 65)
        bad = int((~np.isfinite(vectors).all(1)).sum())
        if bad:
            raise Refused(f"{bad} of {len(vectors)} vectors hold NaN or infinity. Remove or repair them.", 65)
        if not len(vectors):
            return []
        outputs = [output.name for output in self.head.get_outputs()]
        values = self.head.run(outputs, {"features": vectors.astype(np.float32)})
        columns = self._judged(dict(zip(outputs, map(np.asarray, values), strict=True)))
        return [
            self._answer(str(row) if names is None else names[row], {key: value[row] for key, value in columns.items()})
            for row in range(len(vectors))
        ]

    def _judged(self, columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs of the head's graph, with the verdict and the reason of each row."""
        verdict, reason = judge(
            columns["posterior"],
            columns["typicality"],
            columns["pooled"],
            columns["far"],
            self.config["false_reject_rate"],
            self.config["min_probability"],
        )
        return columns | {"verdict": verdict, "reason": reason}

    def _answer(self, name: str, row: dict[str, Any]) -> dict[str, Any]:
        best = int(row["posterior"].argmax())
        return {
            "id": name,
            "label": self.classes[best],
            "probability": float(row["posterior"][best]),
            "typicality": float(row["typicality"]),
            "verdict": str(row["verdict"]),
            "reason": str(row["reason"]) or None,
            **self._subclass(row),
        }

    def _subclass(self, row: dict[str, Any]) -> dict[str, Any]:
        """The subclass of a row: its number, or its name and its own numbers."""
        place = int(row["subclass"])
        if "subclasses" not in self.config:
            return {"subclass": place}
        probability = float(row["subclass_probability"])
        sure = probability >= self.config["min_subclass_probability"]
        return {
            "subclass": self.config["subclasses"][place] if sure else None,
            "subclass_probability": probability,
            "subclass_typicality": float(row["subclass_typicality"]),
            "subclass_typicality_of": "subclass" if row["subclass_own"] else "class",
        }


def decode(path: Path, draft: int | None) -> Image.Image:
    """The first frame of a file, upright and RGB, with transparency on white.

    Args:
        path: of a JPEG, PNG, WebP, GIF, BMP or binary PNM file.
        draft: pixels; a larger JPEG may be decoded at 1/2, 1/4 or 1/8, with no side below this.

    Raises:
        Refused: no such file, too large, or no photo.
    """
    data = _read(path)
    reader = next((reader for magic, reader in READERS if magic.match(data)), None)
    if reader is None:
        raise Refused(f"{path}: is no JPEG, PNG, WebP, GIF, BMP or PNM file. Save it as JPEG or PNG.")
    _check_before_open(data, path)
    try:
        with reader(BytesIO(data)) as image:
            reducible = draft is not None and data[:2] == b"\xff\xd8" and "progressive" not in image.info
            _check_size(image.size, path, MAX_REDUCED_PIXELS if reducible else MAX_PIXELS)
            if draft is not None:
                image.draft(None, (draft, draft))
                _check_size(image.size, path)
            image.load()
            turn = TURNS.get(_orientation(image))
            rgb = _to_rgb(image)
            return rgb if turn is None else rgb.transpose(Image.Transpose(turn))
    except Refused:
        raise
    except Exception as error:  # a decoder may raise anything on damaged bytes
        raise Refused(f"{path}: is damaged ({' '.join(str(error).split())[:120]}). Export or copy it again.") from error


def _read(path: Path) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise Refused(f"{path}: is a folder, pipe, socket or device. Give a photo.")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise Refused(f"{path}: cannot be read ({reason.lower()}). Check the path.") from error
    if not data:
        raise Refused(f"{path}: the file is empty (0 bytes). Export or copy it again.")
    if len(data) > MAX_BYTES:
        raise Refused(f"{path}: the file is above {MAX_BYTES >> 20} MiB. Save it smaller.")
    return data


def _check_before_open(data: bytes, path: Path) -> None:
    """Checks that would be too late after opening: the canvas of WebP, and the scans of a progressive JPEG."""
    if data[:4] == b"RIFF":
        if data[12:16] == b"VP8L":
            bits = int.from_bytes(data[21:25], "little")
            size = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        elif data[12:16] == b"VP8X":
            size = 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
        else:
            size = int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
        _check_size(size, path)
    if data[:2] == b"\xff\xd8":
        marker = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
        scans, found = 0, marker.search(data, 2)
        while found and data[found.end() - 1] != 0xD9 and scans <= MAX_SCANS:
            scans += data[found.end() - 1] == 0xDA
            length = int.from_bytes(data[found.end() : found.end() + 2], "big")
            found = marker.search(data, found.end() + max(length, 2))
        if scans > MAX_SCANS:
            raise Refused(f"{path}: the JPEG has more than {MAX_SCANS} scans. Save it as an ordinary JPEG.")


def _check_size(size: tuple[int, int], path: Path, most: int = MAX_PIXELS) -> None:
    if max(size) > MAX_SIDE or size[0] * size[1] > most:
        raise Refused(f"{path}: {size[0]} x {size[1]} pixels are too many. Save it smaller.")


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(0x0112, 1)
        return value if isinstance(value, int) else 1
    except Exception:  # broken EXIF does not make a photo unreadable
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        wide = np.asarray(image).astype(np.int32)
        full = 4095 if wide.max(initial=0) <= 4095 else 65535  # 12 bits in a 16-bit file, or 16
        narrow = ((255 * wide + full // 2) // full).clip(0, 255).astype(np.uint8)
        clear = image.info.get("transparency")
        if isinstance(clear, int):
            narrow[wide == clear] = 255
        return Image.fromarray(narrow).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _resize(image: Image.Image, step: dict[str, Any]) -> Image.Image:
    width, height = image.size
    if "shortest" in step:
        short = step["shortest"]
        size = (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
    else:
        size = (step["size"][1], step["size"][0])
    return image if size == image.size else image.resize(size, Image.Resampling[step["filter"].upper()])


def _crop(image: Image.Image, step: dict[str, Any]) -> Image.Image:
    height, width = step["size"]
    if image.width < width or image.height < height:
        larger = Image.new("RGB", (max(width, image.width), max(height, image.height)))
        larger.paste(image, (max(0, width - image.width) // 2, max(0, height - image.height) // 2))
        image = larger
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


STEPS = {"resize": _resize, "crop": _crop}


def run(folder: Path, names: list[str], as_json: bool) -> int:
    """Print an answer for each file; returns the exit code, 66 if a file could not be read."""
    runner = Runner(folder)
    tables = [name for name in names if name.lower().endswith(".npy")]
    answers = runner.photos([name for name in names if name not in tables])
    for name in tables:
        answers += runner.answers(_vectors(name))
    if as_json:
        sys.stdout.write(json.dumps(answers, indent=2) + "\n")
    else:
        sys.stdout.writelines(f"{_line(answer)}\n" for answer in answers)
    return 66 if any("error" in answer for answer in answers) else 0


def _vectors(name: str) -> np.ndarray:
    try:
        return np.load(name, allow_pickle=False)
    except OSError as error:
        raise Refused(f"{name}: cannot be read ({error.strerror or error}). Check the path.") from error
    except Exception as error:  # damaged or hostile bytes
        raise Refused(f"{name}: is no array of numbers ({error}). Save it with numpy.save.", 65) from error


def _line(answer: dict[str, Any]) -> str:
    if "error" in answer:
        return "\t".join((_shown(answer["id"]), "error", _shown(answer["error"])))
    columns = [_shown(answer["id"]), answer["verdict"], _shown(answer["label"])]
    columns += [f"{answer['probability']:.4f}", f"{answer['typicality']:.4f}"]
    if "subclass_probability" in answer:  # subclasses have names
        columns.append(_shown(answer["subclass"] or ""))
    return "\t".join(columns + [answer["reason"]] * bool(answer["reason"]))


def _shown(name: str) -> str:
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; every refusal is one sentence."""
    parser = argparse.ArgumentParser(prog="run.py", description="Say which class each photo is, or that it is none.")
    parser.add_argument("files", nargs="+", metavar="FILE", help="photos, or .npy files of vectors")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent, help="folder of the export")
    given = parser.parse_args(arguments)
    try:
        return run(given.folder, given.files, given.json)
    except Refused as error:
        sys.stderr.write(f"run.py: {_shown(str(error))}\n")
        return error.code


if __name__ == "__main__":
    sys.exit(main())
