"""The rules of the house that no type checker holds: one test a rule."""

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mixtura
from mixtura.names import find

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "mixtura"
FILES = sorted(SOURCE.rglob("*.py"))
TABLES = [
    ("mixtura", "PUBLIC"),
    ("mixtura.cli", "COMMANDS"),
    ("mixtura.core", "FAMILIES"),
    ("mixtura.core", "LEAVE_ONE_OUT"),
    ("mixtura.datasets", "DATASETS"),
    ("mixtura.datasets", "PROTOCOLS"),
    ("mixtura.encoders", "ENCODERS"),
    ("mixtura.encoders", "RUNTIMES"),
    ("mixtura.features", "INDEXES"),
    ("mixtura.features", "PROJECTIONS"),
    ("mixtura.heads", "HEADS"),
    ("mixtura.scores", "SCORES"),
    ("mixtura.objectives", "HEAD_OBJECTIVES"),
    ("mixtura.objectives", "PHOTO_OBJECTIVES"),
    ("mixtura.objectives", "EPISODE_OBJECTIVES"),
    ("mixtura.objectives", "SUBCLASS_OBJECTIVES"),
    ("mixtura.objectives", "PAIR_OBJECTIVES"),
    ("mixtura.report", "SECTIONS"),
]
NESTED = {("mixtura.cli", "COMMANDS"): ("mixtura.cli", "PANELS")}
"""A table that is read from a literal dict of dicts, which holds it under the titles of panels."""

ENTRIES = [
    (module, table, name) for module, table in TABLES for name in getattr(importlib.import_module(module), table)
]
UNSAFE_NAMES = {"eval", "exec", "compile", "__import__"}
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
MAY_UNPICKLE = {"datasets/plain_pickle.py"}
MAY_LOAD_TENSORS = {"features/imports.py", "encoders/lite0.py", "encoders/timm.py"}
CHOOSES_FAMILIES = {"core/selection.py", "sklearn/classifier.py"}
PROTOCOLS_OF_ONE_FOLDER = {
    "ChunkedScores",
    "Covariance",
    "Hook",
    "Index",
    "KeyBank",
    "RowOrder",
    "Runtime",
    "Score",
    "SeparableScores",
    "Sums",
}
MACHINE_PATH = re.compile(r"(?<![\w.:/~<])/(home|root|work|tmp|opt|mnt|Users|srv)/")


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def calls(module: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    """Every call with its dotted name."""
    return ((ast.unparse(node.func), node) for node in ast.walk(module) if isinstance(node, ast.Call))


def code_lines(function: ast.AST, text: list[str]) -> int:
    """Lines that hold code of the body: no blanks, comments or docstrings."""
    body = function.body
    if (
        isinstance(body[0], ast.Expr)
        and isinstance(body[0].value, ast.Constant)
        and isinstance(body[0].value.value, str)
    ):
        body = body[1:]
    lines = {line for node in body for line in range(node.lineno, node.end_lineno + 1)}
    return sum(1 for line in lines if text[line - 1].strip() and not text[line - 1].lstrip().startswith("#"))


def relative(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def test_imports_go_down_only():
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr


@pytest.mark.parametrize(
    "code", ["import mixtura", "import mixtura; dir(mixtura)", "import mixtura.cli.app as a; a.build()"]
)
def test_no_heavy_import_before_work_starts(code):
    heavy = "{'torch', 'numpy', 'sklearn', 'pyarrow', 'timm', 'torchvision', 'PIL', 'scipy'}"
    check = f"{code}; import sys; found = {heavy} & set(sys.modules); assert not found, found"
    subprocess.run([sys.executable, "-c", check], check=True)


def test_help_imports_no_torch():
    check = (
        "import sys\nfrom mixtura.cli.app import run\nassert run(['--help']) == 0\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", check], check=True, stdout=subprocess.DEVNULL)


def test_that_test_can_fail():
    check = "import mixtura; mixtura.Mixture; import sys; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True)


@pytest.mark.parametrize(("module", "table", "name"), ENTRIES, ids=lambda value: value)
def test_every_entry_of_every_table_resolves(module, table, name):
    assert find(getattr(importlib.import_module(module), table), name) is not None


def test_every_table_is_known_here():
    """A literal dict of ``name -> "module:Attr"``, or of such dicts, in an ``__init__`` is a registration table."""
    found = set()
    for path in SOURCE.rglob("__init__.py"):
        for node in tree(path).body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict) and node.value.values:
                inner = [v for v in node.value.values if isinstance(v, ast.Dict)] or [node.value]
                targets = [v for one in inner for v in one.values]
                if all(isinstance(v, ast.Constant) and ":" in str(v.value) for v in targets):
                    folder = path.parent.relative_to(SOURCE.parent).as_posix().replace("/", ".")
                    found.add((folder, ast.unparse(node.targets[0])))
    assert found == {NESTED.get(table, table) for table in TABLES}


def test_public_names_agree():
    assert set(mixtura.__all__) == set(mixtura.PUBLIC) and len(mixtura.__all__) <= 40
    assert set(dir(mixtura)) == {*mixtura.__all__, "__version__"}
    for name in mixtura.__all__:
        assert getattr(mixtura, name).__doc__


def test_type_checkers_see_the_same_names():
    block = next(node for node in tree(SOURCE / "__init__.py").body if isinstance(node, ast.If))
    seen = {(a.asname, f"{node.module}:{a.name}") for node in block.body for a in node.names}
    assert seen == set(mixtura.PUBLIC.items())


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Mixtures'"):
        mixtura.Mixtures  # noqa: B018 - the access is the test


def test_version_is_the_installed_one():
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'\nversion = "{mixtura.__version__}"' in pyproject
    assert f"## [{mixtura.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_files_and_functions_fit_in_the_head(path):
    text = path.read_text(encoding="utf-8").splitlines()
    assert len(text) <= 400, f"{len(text)} lines"
    for function in functions(path):
        assert code_lines(function, text) <= 60, f"{function.name} has {code_lines(function, text)} code lines"


@pytest.mark.parametrize("path", [path for path in FILES if "cli" not in path.parts], ids=relative)
def test_functions_take_few_arguments(path):
    """Command files take every option, scikit-learn's estimators every parameter, a start all that a plan holds."""
    for function in functions(path):
        arguments = function.args
        named = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
        whole = (path.parent.name == "sklearn" and function.name == "__init__") or function.name == "from_labels"
        assert whole or len([a for a in named if a not in ("self", "cls")]) <= 7, function.name


def test_an_unpickler_answers_for_every_name_itself():
    """A pickle is read by a class that gives what a name stands for, and by nothing else of the module."""
    for file in MAY_UNPICKLE:
        module = tree(SOURCE / file)
        used = {ast.unparse(node) for node in ast.walk(module) if isinstance(node, ast.Attribute)}
        assert {name for name in used if name.startswith("pickle.")} == {"pickle.Unpickler", "pickle.UnpicklingError"}
        assert "pickle.Unpickler" not in {name for name, _ in calls(module)}
        for one in (node for node in ast.walk(module) if isinstance(node, ast.ClassDef)):
            if "pickle.Unpickler" in map(ast.unparse, one.bases):
                assert {"find_class", "persistent_load"} <= {
                    part.name for part in one.body if isinstance(part, ast.FunctionDef)
                }


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_nothing_runs_what_a_file_says(path):
    module = tree(path)
    for node in ast.walk(module):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        unsafe = UNSAFE_MODULES & {name.partition(".")[0] for name in names}
        assert not unsafe or (relative(path) in MAY_UNPICKLE and unsafe == {"pickle"})
    for name, call in calls(module):
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert name not in UNSAFE_NAMES, name
        assert options.get("allow_pickle", "False") == "False", name
        if name == "torch.load":
            assert relative(path) in MAY_LOAD_TENSORS and options.get("weights_only") == "True", name
        if name.startswith("yaml."):
            assert name not in {"yaml.load", "yaml.unsafe_load", "yaml.full_load"} or "Safe" in ast.unparse(call), name
        assert "shell" not in options or options["shell"] == "False", name


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_only_linalg_calls_torch_linalg(path):
    """But ``doctor``, which checks torch itself, and the law kits, which check us by torch."""
    if relative(path) in {"core/linalg.py", "tasks/doctor.py"} or "testing" in path.parts:
        return
    used = {ast.unparse(node) for node in ast.walk(tree(path)) if isinstance(node, ast.Attribute)}
    assert not {name for name in used if name.startswith("torch.linalg")}


def protocols(path: Path) -> set[str]:
    """The classes of a file that are protocols."""
    classes = (node for node in ast.walk(tree(path)) if isinstance(node, ast.ClassDef))
    return {node.name for node in classes if {"Protocol"} & {ast.unparse(base) for base in node.bases}}


def test_interfaces_are_protocols_and_nothing_else():
    """No logic: a docstring, imports, and protocols whose methods say what they do and do nothing."""
    path = SOURCE / "interfaces.py"
    docstring, *rest = tree(path).body
    assert isinstance(docstring, ast.Expr)
    assert all(isinstance(node, ast.Import | ast.ImportFrom | ast.ClassDef) for node in rest)
    assert protocols(path) == {node.name for node in rest if isinstance(node, ast.ClassDef)}
    for method in functions(path):
        assert ast.get_docstring(method) and [ast.unparse(node) for node in method.body[1:]] == ["..."], method.name


def test_no_interface_is_written_twice():
    """A protocol outside ``interfaces`` is one that a single folder uses."""
    elsewhere = set().union(*(protocols(path) for path in FILES if relative(path) != "interfaces.py"))
    assert elsewhere == PROTOCOLS_OF_ONE_FOLDER


def test_no_switch_on_the_name_of_a_family():
    """Only the files that say what "auto" tries compare names of covariance families."""
    families = {"spherical", "diagonal", "lowrank", "tied", "full"}
    for path in FILES:
        if relative(path) in CHOOSES_FAMILIES:
            continue
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Compare):
                compared = {c.value for c in ast.walk(node) if isinstance(c, ast.Constant) and isinstance(c.value, str)}
                assert not compared & families, f"{relative(path)}:{node.lineno} {ast.unparse(node)}"


def tracked() -> list[Path]:
    """Every text file of the repository."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    names = [name for name in listing.stdout.split("\0") if name]
    return [ROOT / name for name in names] or list(FILES)


def test_no_path_of_one_machine():
    for path in tracked():
        if path.suffix in {".npz", ".png", ".jpg", ".woff2"} or not path.is_file() or path == Path(__file__):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            allowed = line.replace("/tmp/demo", "")
            assert not MACHINE_PATH.search(allowed), f"{path.relative_to(ROOT)}:{number} {line.strip()}"


@pytest.mark.parametrize("folder", ["core", "heads"])
def test_the_readme_of_a_folder_names_files_that_are_there(folder):
    named = re.findall(r"`(\w+\.py)`", (SOURCE / folder / "README.md").read_text(encoding="utf-8"))
    assert (named or folder == "heads") and not [name for name in named if not list((SOURCE / folder).rglob(name))]


BRITISH = re.compile(
    r"neighbour|behaviour|colour|favour|centre(?!d)|catalogue\b|\blicence|\bgrey|judgement|(?<!aria-)labell(ed|ing)|modell(ed|ing)|"
    r"(normal|initial|optim|recogn|organ|regular|maxim|minim|summar)is(e|ed|es|ing)\b",
    re.IGNORECASE,
)


def test_the_spelling_is_american():
    """But where old names are told, or read from folders that earlier versions wrote."""
    told = {"CHANGELOG.md", "tests/fixtures/make_layout_1.py", "tests/fixtures/test_layout_1.py"}
    for path in tracked():
        name = path.relative_to(ROOT).as_posix()
        if name in told or path.suffix not in {".py", ".md", ".js", ".html", ".yaml"} or path == Path(__file__):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            assert not BRITISH.search(line), f"{name}:{number} {line.strip()}"


def test_nothing_is_left_for_later():
    words = re.compile(r"\b(TODO|FIXME|XXX|raise NotImplementedError|pytest\.(mark\.)?(skip|xfail))\b")
    for path in (*FILES, *sorted((ROOT / "tests").rglob("*.py"))):
        if path != Path(__file__):
            assert not words.search(path.read_text(encoding="utf-8")), path


def test_every_test_file_has_a_name_of_its_own():
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names))
    assert not list((ROOT / "tests").rglob("__init__.py"))
