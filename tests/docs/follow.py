"""Follow the how-to pages literally, on photos of the demo: ``make follow``, or with the names of some pages.

Each page gets a new folder with what its readers have: ``photos/`` with a folder for each product and one of other
things, ``inbox/``, ``new.jpg``, ``a.jpg``, ``b.jpg``, ``other.jpg``, photos of clients in ``checked/``,
``recipes/``; and a model ``shop/``, unless the page begins with its fit. There, in the order of the page,

- shell blocks run in bash, Python blocks in one Python, with the installed command and the real default encoder;
- ``mixtura serve`` runs until the next service or the end of the page, and is then stopped as by Ctrl-C;
- ``curl`` fails where the answer is an error;
- each line of an ``output`` block was printed by a command before it, whatever the numbers;
- the files that the text names are there or in the checkout, and the commands and options that it names exist.

A block whose first line is ``# needs ...`` cannot run here: it is listed with what it needs, and not run.
Exit code 1 and a last line FAIL tell that a page is wrong.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from blocks import SHELLS, SHOWN, blocks

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs" / "how-to"
PHOTOS_A_PRODUCT, CLIENT_PHOTOS = 12, 5
PRODUCTS = {
    "apple": "Trouser",
    "pear": "Dress",
    "plum": "Sneaker",
    "cup": "T-shirt/top",
    "pot": "Ankle boot",
    "other": "Bag",
}
"""The article of the demo that stands for each product."""
FIT = "mixtura fit photos/ -o shop"
BLOCK_SECONDS, START_SECONDS = 600, 120
COMMAND_LINE = re.compile(r"^(\$ )?(mixtura|curl|pip|python|docker|export) ", re.MULTILINE)
CODE_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
FILE_NAME = re.compile(r"[\w.-]+(/[\w.-]+)*\.(html|csv|yaml|json|parquet|onnx|sqlite|py|md)")
NUMBER, SOME_NUMBER = re.compile(r"\d+(?:\.\d+)?"), r"(?:over |under )?\d+(?:\.\d+)?%?"
END = "--- end of block"
DRIVER = f"""
import json, sys, traceback
space = {{"__name__": "__main__"}}
for line in sys.stdin:
    failed = 0
    try:
        exec(compile(json.loads(line), "<block>", "exec"), space)
    except BaseException:
        failed = 1
        traceback.print_exc(file=sys.stdout)
    print(f"\\n{END} {{failed}}", flush=True)
"""


class Wrong(Exception):
    """What a page says does not hold."""


@dataclass
class Readers:
    """Whoever follows a page: a shell, one Python and at most one service, all in one folder."""

    place: Path
    environment: dict[str, str]
    service: subprocess.Popen | None = None
    python: subprocess.Popen | None = None
    seen: list[str] = field(default_factory=list)

    def run(self, block):
        """Do what a block says; what it prints is added to ``seen``."""
        if block.serves:
            self.serve(block.code)
        elif block.language in SHELLS:
            self.shell(block.code)
        elif block.language == "python":
            self.interpret(block.code)
        elif block.language == "output":
            self.compare(block.code)
        elif block.language not in SHOWN:
            raise Wrong(f"what is {block.language!r}?")
        elif COMMAND_LINE.search(block.code):
            raise Wrong("commands stand in a block that is not run")

    def shell(self, code):
        try:
            done = self.start(["bash", "-euo", "pipefail", "-c", code], stdin=subprocess.DEVNULL)
            printed, _ = done.communicate(timeout=BLOCK_SECONDS)
        except subprocess.TimeoutExpired:
            done.kill()
            raise Wrong(f"it has not ended after {BLOCK_SECONDS} s") from None
        self.seen.append(printed)
        if done.returncode:
            raise Wrong(f"exit code {done.returncode}\n{printed}")

    def interpret(self, code):
        if self.python is None:
            self.python = self.start([sys.executable, "-c", DRIVER], stdin=subprocess.PIPE)
        self.python.stdin.write(json.dumps(code) + "\n")
        self.python.stdin.flush()
        printed = ""
        while not re.search(rf"^{END} [01]\n", printed, re.MULTILINE):
            line = self.python.stdout.readline()
            if not line:
                raise Wrong(f"Python has ended\n{printed}")
            printed += line
        self.seen.append(printed)
        if printed.endswith("1\n"):
            raise Wrong(f"Python failed\n{printed}")

    def serve(self, code):
        self.end_service()
        self.service = self.start(["bash", "-c", f"exec {code}"], stdin=subprocess.DEVNULL)
        page = self.service.stdout.readline()
        self.seen.append(page)
        port = re.search(r":(\d+)/#token=", page)
        if port is None:
            raise Wrong(f"it does not serve\n{page}{self.service.stdout.read()}")
        self.wait_for(f"http://127.0.0.1:{port[1]}/readyz")

    @staticmethod
    def wait_for(address):
        local, end = urllib.request.build_opener(urllib.request.ProxyHandler({})), time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            with suppress(OSError), local.open(address, timeout=5):
                return
            time.sleep(0.1)
        raise Wrong("the service is not ready")

    def end_service(self):
        """Stop the service as Ctrl-C does."""
        if self.service is None:
            return
        self.service.send_signal(signal.SIGINT)
        code, self.service = self.service.wait(START_SECONDS), None
        if code not in {0, 130}:
            raise Wrong(f"the service ended with {code}")

    def compare(self, shown):
        """Check that lines were printed; numbers may differ."""
        printed = re.sub(r"\s+", " ", "\n".join(self.seen))
        for line in filter(None, map(str.strip, shown.splitlines())):
            pattern = SOME_NUMBER.join(map(re.escape, NUMBER.split(" ".join(line.split()))))
            if not re.search(pattern, printed):
                raise Wrong(f"no command has printed: {line}")

    def start(self, command, **streams):
        return subprocess.Popen(
            command,
            cwd=self.place,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **streams,
        )

    def end(self):
        """Leave nothing that runs."""
        for process in filter(None, (self.service, self.python)):
            process.kill()
            process.communicate()


def environment_at(root: Path) -> dict[str, str]:
    """Where the commands of a page run: the newest mixtura, no hub, and a curl that fails on errors."""
    programs = root / "bin"
    programs.mkdir()
    for name, start in (("mixtura", f"{sys.executable} -m mixtura"), ("python", sys.executable)):
        (programs / name).write_text(f'#!/bin/sh\nexec {start} "$@"\n')
        (programs / name).chmod(0o755)
    (root / ".curlrc").write_text('fail-with-body\nsilent\nshow-error\nnoproxy = "*"\n')
    return os.environ | {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
        "CURL_HOME": str(root),
        "HF_HUB_OFFLINE": "1",
        "COLUMNS": "200",
    }


def lay_out(place: Path) -> None:
    """The photos that readers of the pages have."""
    from PIL import ImageFilter

    from mixtura.datasets import demo

    photos = demo.load()
    at = {
        article: iter([n for n, item in enumerate(photos.items) if item.label == article])
        for article in PRODUCTS.values()
    }

    def save(product, *path, worse=False):
        picture = photos.image(next(at[PRODUCTS[product]]))
        target = place.joinpath(*path)
        target.parent.mkdir(parents=True, exist_ok=True)
        (picture.filter(ImageFilter.GaussianBlur(1.5)) if worse else picture).save(target, quality=95)

    for product in PRODUCTS:
        for number in range(PHOTOS_A_PRODUCT):
            save(product, "photos", product, f"{number}.jpg")
        save(product, "inbox", f"{product}.jpg")
    for product in PRODUCTS.keys() - {"other"}:
        for number in range(CLIENT_PHOTOS):
            save(product, "checked", product, f"{number}.jpg", worse=True)
    for name in ("new", "a", "b"):
        save("pear", f"{name}.jpg")
    save("other", "other.jpg")
    shutil.copytree(ROOT / "recipes", place / "recipes")


def faults_of_text(page: Path, place: Path) -> list[str]:
    """Files, commands and options that a page names and that are not there."""
    made = [path.as_posix() for root in (place, ROOT / "src", ROOT / "recipes") for path in root.rglob("*")]
    files = [span for span in spans(page) if FILE_NAME.fullmatch(span) and not (ROOT / span).exists()]
    absent = [f"there is no {span}" for span in files if not any(path.endswith(f"/{span}") for path in made)]
    return absent + unknown_names(page)


def unknown_names(page: Path) -> list[str]:
    """Commands, and options of them or of the examples that a page names, which are not there."""
    known = (ROOT / "docs/reference/cli.md").read_text(encoding="utf-8")
    programs = [ROOT / span for span in spans(page) if re.fullmatch(r"examples/\w+\.py", span)]
    known += "".join(path.read_text(encoding="utf-8") for path in programs if path.exists())
    faults = []
    for span in spans(page):
        if span.startswith(("mixtura ", "--")):
            names = re.findall(r"--[a-z][a-z-]*", span) + re.findall(r"^mixtura [a-z]+", span)
            faults += [f"there is no {name} ({span})" for name in names if not re.search(rf"{name}\b", known)]
    return faults


def spans(page: Path) -> list[str]:
    """What a page's text, without its blocks, shows as code."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return list(dict.fromkeys(CODE_SPAN.findall(text)))


def follow(page: Path, place: Path, environment: dict[str, str]) -> tuple[list[str], list[str]]:
    """Follow one page in a folder; returns what is wrong and what was not run."""
    readers, not_run = Readers(place, environment), []
    try:
        for block in blocks(page):
            where = f"{page.name}:{block.line}"
            if block.note:
                return [f"{where}: a hidden note. Begin the block with '# needs ...', which readers see"], not_run
            if block.needs:
                not_run.append(f"{where}: needs {block.needs}")
                continue
            try:
                readers.run(block)
            except Wrong as wrong:
                return [f"{where}: {wrong}\n{block.code}"], not_run
        try:
            readers.end_service()
        except Wrong as wrong:
            return [f"{page.name}: {wrong}"], not_run
        return [f"{page.name}: {fault}" for fault in faults_of_text(page, place)], not_run
    finally:
        readers.end()


def follow_in(root: Path, own: list[Path], shared: deque[Path]) -> list[str]:
    """Follow pages one after another, each in a new folder; prints what happens and returns what is wrong.

    Args:
        root: a folder to make.
        own: pages that nobody else follows, first of all.
        shared: pages that others take from too.
    """
    faults, began = [], time.monotonic()
    root.mkdir()
    environment, place = environment_at(root), root / "work"
    lay_out(place)
    Readers(place, environment).shell(FIT)
    shutil.copytree(place, root / "start")
    print(f"{time.monotonic() - began:6.1f} s  photos and a model", flush=True)
    for page in taken(own, shared):
        began = time.monotonic()
        shutil.rmtree(place)
        shutil.copytree(root / "start", place)
        if blocks(page)[0].code.startswith(f"{FIT}\n"):
            shutil.rmtree(place / "shop")
        wrong, not_run = follow(page, place, environment)
        faults += wrong
        told = [f"{time.monotonic() - began:6.1f} s  {page.stem}: {'wrong' if wrong else 'as it says'}"]
        print("\n".join(told + [f"          not run: {one}" for one in not_run] + wrong), flush=True)
    return faults


def taken(own: list[Path], shared: deque[Path]) -> Iterator[Path]:
    """Pages to follow: one's own, then those that are left."""
    yield from own
    with suppress(IndexError):
        while True:
            yield shared.popleft()


def main(names):
    """Follow all pages, or those with some names, two at a time; those with a service use one port, so never two."""
    pages = [page for page in sorted(PAGES.glob("*.md")) if not names or page.stem in names]
    if len(pages) < len(set(names)):
        sys.exit(f"There is no page of one of these names in {PAGES}: {', '.join(names)}.")
    serving = [page for page in pages if any(block.serves for block in blocks(page))]
    shared = deque(page for page in pages if page not in serving)
    firsts = [serving, []][: len(pages)]
    with tempfile.TemporaryDirectory(prefix="follow-") as folder, ThreadPoolExecutor(len(firsts)) as pool:
        jobs = [pool.submit(follow_in, Path(folder, str(n)), own, shared) for n, own in enumerate(firsts)]
        faults = [fault for job in jobs for fault in job.result()]
    print("FAIL" if faults else "PASS")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
