"""README and docs say what works: every block of code in them is run, in the order in which it stands.

- ``python`` blocks of a page run one after another in one namespace.
- ``bash`` blocks run as they are written: lines that are plain ``mixtura`` commands in this process, blocks with pipes,
  redirections or control flow in bash. Under the name of the default encoder stands the tiny one, for speed.
- A block under ``<!-- parsed only: why -->``, one that begins with ``# needs ...``, and one that serves are not
  run, but their commands must parse and their recipes resolve. What asks a service is left to ``follow.py``.
- A block under ``<!-- not run: why -->`` may hold ``make`` targets only, which must exist.

The folder in which a page runs holds ``photos/``, ``inbox/``, ``new.jpg``, ``a.jpg``, ``b.jpg``, ``recipes/`` and a
fitted model ``shop/``. ``text`` and ``yaml`` blocks are not code that runs.
"""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

import mixtura
from mixtura.cli.app import run
from mixtura.encoders import ENCODERS
from mixtura.heads import HEADS
from mixtura.recipe import keys

sys.path.insert(0, str(Path(__file__).parent))
from blocks import SHELLS, SHOWN, blocks, lines

ROOT = Path(__file__).resolve().parents[2]
BESIDE_CODE = [ROOT / "src/mixtura/core/README.md", ROOT / "src/mixtura/heads/README.md"]
PAGES = [ROOT / "README.md", *BESIDE_CODE, *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if page.exists() and page.name != "cli.md"]
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#]*)(?:#([^)]*))?\)")
KINDS = {"apple": (200, 30, 30), "pear": (150, 200, 60), "plum": (90, 30, 120), "other": (120, 120, 120)}


SHIM = """#!{python}
from mixtura.encoders import ENCODERS

ENCODERS["lite0"] = ENCODERS["tiny"]
from mixtura.cli import main

main()
"""


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def photo(rng: np.random.Generator, kind: str) -> Image.Image:
    """A disk of the kind's color on a light ground, with noise."""
    y, x = np.mgrid[:48, :48]
    disk = (y - rng.integers(20, 28)) ** 2 + (x - rng.integers(20, 28)) ** 2 < rng.integers(12, 18) ** 2
    picture = np.where(disk[..., None], np.array(KINDS[kind]), 235) + rng.normal(0, 12, (48, 48, 3))
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module", autouse=True)
def small_encoder():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENCODERS, "lite0", ENCODERS["tiny"])
        yield


@pytest.fixture(scope="module")
def shop_front(tmp_path_factory):
    """Photos and a model, made once."""
    folder = tmp_path_factory.mktemp("docs")
    program = folder / "bin" / "mixtura"
    program.parent.mkdir()
    program.write_text(SHIM.format(python=sys.executable))
    program.chmod(0o755)
    python = program.with_name("python")
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    rng = np.random.default_rng(0)
    for kind in KINDS:
        (folder / "photos" / kind).mkdir(parents=True)
        for number in range(12):
            photo(rng, kind).save(folder / "photos" / kind / f"{number}.jpg", quality=95)
    (folder / "inbox").mkdir()
    for path in ("new.jpg", "a.jpg", "b.jpg", "inbox/1.jpg", "inbox/2.jpg"):
        photo(rng, "pear").save(folder / path)
    for number in range(24):
        path = folder / "checked" / list(KINDS)[number % 3] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo(rng, path.parent.name).filter(ImageFilter.GaussianBlur(3)).save(path)
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    mixtura.fit(mixtura.resolve({"data.root": str(folder / "photos"), "output": str(folder / "shop")}))
    return folder


@pytest.fixture
def place(shop_front, tmp_path, monkeypatch):
    """A copy for one page, with the model's recipe speaking of the copy."""
    folder = tmp_path / "work"
    shutil.copytree(shop_front, folder)
    recipe = folder / "shop" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace(str(shop_front), str(folder)))
    monkeypatch.chdir(folder)
    monkeypatch.setattr("mixtura.heads.HEADS", dict(HEADS))  # a page adds a name
    return folder


def is_plain(code: str) -> bool:
    """Whether a block is nothing but mixtura commands, so that no shell is needed."""
    return all(line.startswith("mixtura ") and not set("|><;&$(`*") & set(line) for line in lines(code))


def run_bash(code: str) -> None:
    if is_plain(code):
        for line in lines(code):
            assert run(shlex.split(line)[1:]) == 0, line
        return
    search = f"{Path.cwd() / 'bin'}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-ec", code], env=os.environ | {"PATH": search}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def only_parse(code: str) -> None:
    """Resolve the recipe of a command that takes one; of others, ask for help under the same name."""
    for line in lines(code):
        if not line.startswith("mixtura "):
            continue
        words = shlex.split(line)[1:]
        wanted = [*words, "--dry-run"] if words[0] in {"fit", "extract"} else [words[0], "--help"]
        assert run(wanted) == 0, line


def only_name(code: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in lines(code):
        assert line.startswith("make ") and set(line.split()[1:]) <= targets, line


BASH = {"": run_bash, "parsed only": only_parse, "not run": only_name}


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=name_of)
def test_the_code_of_a_page_runs(page, place):
    namespace = {"__name__": "__main__"}
    for block in blocks(page):
        if block.language == "python":
            assert not block.note, "python blocks are run"
            exec(compile(block.code, name_of(page), "exec"), namespace)
        elif block.language in SHELLS:
            waits = block.needs or block.serves or block.asks_a_service
            BASH["parsed only" if waits else block.note](block.code)
        else:
            assert block.language in SHOWN, f"what is {block.language!r}?"


@pytest.mark.parametrize("page", [*PAGES, ROOT / "docs/reference/cli.md", ROOT / "CHANGELOG.md"], ids=name_of)
def test_links_lead_somewhere(page):
    for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", head).strip().lower().replace(" ", "-") for head in heads}, anchor


def maker():
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "docs" / "make_reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_made_pages_and_figures_are_current():
    """If this fails, run: python docs/make_reference.py"""
    for path, text in maker().pages().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run python docs/make_reference.py"


def test_the_page_of_the_recipe_has_every_key():
    page = (ROOT / "docs" / "reference" / "recipe.md").read_text(encoding="utf-8").replace("[]", "")
    known = list(keys())
    leaves = [key for key in known if not any(other.startswith(f"{key}.") for other in known)]
    assert [key for key in leaves if f"| `{key}` |" not in page] == []


def test_every_page_is_in_the_navigation():
    listed = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        assert page.relative_to(ROOT / "docs").as_posix() in listed


def test_pages_speak_of_every_public_name():
    told = " ".join(page.read_text(encoding="utf-8") for page in PAGES)
    for name in mixtura.__all__:
        assert re.search(rf"\b{name}\b", told), name


def test_exit_codes_of_the_page_are_those_of_the_errors():
    page = (ROOT / "docs/reference/exit-codes.md").read_text(encoding="utf-8")
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
    from mixtura import errors

    raised = {e.exit_code for e in vars(errors).values() if isinstance(e, type) and issubclass(e, errors.MixturaError)}
    assert raised <= listed | {1}
