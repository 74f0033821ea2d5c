"""What holds for every command: help, versions, exit codes, one sentence on stderr."""

import inspect
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mixtura import __version__, errors
from mixtura.cli import COMMANDS, app
from mixtura.cli.options import CHOICES, FLAGS
from mixtura.cli.output import plain
from mixtura.names import find
from mixtura.pipeline.data_source import data_keys
from mixtura.recipe import keys, resolve

ROOT = Path(__file__).parents[2]


def subcommands():
    return [name.split() for name in COMMANDS]


def process(*arguments, **options):
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")} | options.pop("env", {})
    return subprocess.run(
        [sys.executable, "-m", "mixtura", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        **options,
    )


@pytest.mark.parametrize("words", subcommands(), ids=" ".join)
def test_every_command_explains_itself_with_examples_that_fit_the_page(mixtura, monkeypatch, words):
    answer = mixtura(*words, "--help")
    assert answer.code == 0
    assert answer.err == ""
    assert "Examples" in answer.out
    examples = inspect.getdoc(find(COMMANDS, " ".join(words))).partition("Examples:\n")[2].splitlines()
    assert len(examples) >= 2
    for line in examples:
        assert len(line) <= 77, line
        assert f"mixtura {' '.join(words)}" in line or "mixtura fit" in line or "|" in line, line


@pytest.mark.parametrize("words", subcommands(), ids=" ".join)
def test_every_example_is_a_command_line_that_parses(words):
    """Each example's options exist: the command is found and its parameters are known."""
    for line in inspect.getdoc(find(COMMANDS, " ".join(words))).partition("Examples:\n")[2].splitlines():
        call = re.search(r"mixtura ((?:data )?[a-z]+)(.*)", line.split("  ", 2)[-1] if line.startswith("   ") else line)
        used = set(re.findall(r"(?<!\S)--[a-z-]+", call[2].split(" | ")[0]))
        parameters = inspect.signature(find(COMMANDS, call[1])).parameters
        declared = {
            option
            for one in parameters.values()
            for about in getattr(one.annotation, "__metadata__", ())
            for option in (getattr(about, "default", None), *(getattr(about, "param_decls", None) or ()))
        }
        shared = {"--json", "--quiet", "--verbose", "--debug", "--set", "--recipe", "--dry-run"}
        assert used <= shared | declared | {f"--{name.replace('_', '-')}" for name in parameters}, line


def test_help_is_quick_and_needs_no_torch():
    code = (
        "import sys\nfrom mixtura.cli.app import run\n"
        "for words in (['--help'], ['fit', '--help'], ['predict', '--help'], ['data', 'list', '--help']):\n"
        "    assert run(words) == 0\n"
        "heavy = {'torch', 'numpy', 'timm', 'sklearn', 'pyarrow', 'PIL', 'click'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr


def test_help_answers_in_half_a_second():
    # The processor's time, as the clock on the wall also counts what else the machine is doing.
    assert min(_seconds(["--help"]) for _ in range(5)) < 0.5


def _seconds(arguments):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert process(*arguments).returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def test_no_arguments_mean_help(mixtura):
    answer = mixtura()
    assert answer.code == 0
    for name in COMMANDS:
        assert name.split()[0] in answer.out


def test_version(mixtura):
    assert mixtura("--version").out == f"mixtura {__version__}\n"


def test_no_color_means_no_escape_codes():
    forced = process("--help", env={"FORCE_COLOR": "1"})
    plain_text = process("--help", env={"NO_COLOR": "1"})
    assert "\x1b[3" in forced.stdout or "\x1b[1;3" in forced.stdout
    assert "\x1b" not in plain_text.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["predic"], "No such command 'predic'. Did you mean 'predict'? Try 'mixtura --help'."),
        (["fit", "--famili", "x"], "No such option: --famili. Did you mean --family? Try 'mixtura fit --help'."),
        (["predict"], "Missing argument 'MODEL'. Try 'mixtura predict --help'."),
        (["fit", "p", "--size", "big"], "--size is 'big', but it should be a whole number."),
        (["fit"], "No data given."),
        (["fit", "photos"], "No output folder given. Name one with -o, as in: mixtura fit photos/ -o shop"),
        (["fit", "photos", "-o", ""], "--output is '', but it should not be empty"),
        (["fit", "p", "-o", "s", "--set", "head.famly=full"], "Did you mean 'head.family'?"),
        (["fit", "p", "-o", "s", "--set", "head.family"], "--set 'head.family' is not KEY=VALUE."),
        (["fit", "p", "-o", "s", "--family", "full", "--set", "head.family=tied"], "'head.family' is set twice"),
        (["fit", "p", "-o", "s", "--n-components", "many"], "--n-components is 'many'"),
        (
            ["fit", "p", "-o", "s", "--false-reject-rate", "5"],
            "--false-reject-rate is '5', but it should be above 0 and below 1, as in 0.05 or 5%.",
        ),
    ],
)
def test_a_wrong_word_is_one_sentence_and_code_2(mixtura, arguments, said):
    answer = mixtura(*arguments)
    assert answer.code == 2
    assert answer.out == ""
    assert said in answer.err
    assert answer.err.startswith("mixtura: ")
    assert answer.err.count("\n") == 1


def _tree(kind):
    yield kind
    for child in kind.__subclasses__():
        yield from _tree(child)


@pytest.mark.parametrize("kind", [*_tree(errors.MixturaError)], ids=lambda kind: kind.__name__)
def test_every_error_ends_with_its_code_and_one_sentence(mixtura, task, kind):
    def fail(*arguments):
        raise kind("What, which value,\nwhat to do.", *(["empty"] if issubclass(kind, errors.BadItem) else []))

    task("mixtura.tasks.evaluate", run=fail)
    answer = mixtura("evaluate", "shop")
    assert answer.code == kind.exit_code
    assert answer.err == "mixtura: What, which value, what to do.\n"
    assert answer.out == ""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyboardInterrupt(), 130),
        (OSError(28, "No space left on device", "store"), 74),
        (PermissionError(13, "Permission denied", "store"), 73),
        (FileNotFoundError(2, "No such file or directory", "a.jpg"), 66),
        (OSError(110, "Connection timed out"), 70),
        (ZeroDivisionError("division by zero"), 70),
        (MemoryError(), 71),
    ],
)
def test_every_other_ending_has_its_code(mixtura, task, error, code):
    def fail(*arguments):
        raise error

    task("mixtura.tasks.evaluate", run=fail)
    answer = mixtura("evaluate", "shop")
    assert answer.code == code
    assert answer.err.count("\n") == 1
    assert ("--debug" in answer.err) == (code == 70)


def test_a_termination_signal_ends_with_143(mixtura, task):
    before = signal.getsignal(signal.SIGTERM)

    def work(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    task("mixtura.tasks.evaluate", run=work)
    answer = mixtura("evaluate", "shop")
    assert answer.code == 143
    assert "terminated; finished work is kept" in answer.err
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_reader_that_goes_away_is_no_fault():
    code = (
        "import sys, types\nfake = types.ModuleType('mixtura.tasks.data')\n"
        "fake.list = lambda: {str(i): dict.fromkeys(('about', 'get', 'layout'), 'x' * 400) for i in range(1000)}\n"
        "sys.modules['mixtura.tasks.data'] = fake\n"
        "from mixtura.cli.app import run\nsys.exit(run(['data', 'list', *sys.argv[1:]]))\n"
    )
    for option in ("--json", "-q"):
        environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
        child = subprocess.Popen(
            [sys.executable, "-c", code, option], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
        )
        child.stdout.close()
        with child.stderr:
            assert child.stderr.read() == b""
        assert child.wait() == 141


def test_debug_shows_the_traceback_and_the_same_sentence(mixtura, task):
    def fail(*arguments):
        raise ZeroDivisionError("division by zero")

    task("mixtura.tasks.evaluate", run=fail)
    answer = mixtura("evaluate", "shop", "--debug")
    assert answer.code == 70
    assert "Traceback" in answer.err
    assert "in fail" in answer.err
    assert answer.err.splitlines()[-1].startswith(
        "mixtura: This is a fault in mixtura (ZeroDivisionError: division by zero)."
    )


def test_the_page_on_exit_codes_names_every_code():
    text = (ROOT / "docs" / "reference" / "exit-codes.md").read_text()
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", text, flags=re.MULTILINE)}
    own = {app.INTERNAL, app.NO_MEMORY, app.INTERRUPTED, app.BROKEN_PIPE, app.TERMINATED}
    assert documented == {0} | own | {kind.exit_code for kind in _tree(errors.MixturaError)}


@pytest.mark.parametrize("command", ["fit", "sweep"])
def test_every_option_names_its_default_and_the_names_that_it_takes(command):
    assert set(CHOICES) <= set(keys())
    help_text = process(command, "--help", env={"TERMINAL_WIDTH": "600"}).stdout
    recipe = resolve({})
    for key, option in FLAGS.items():
        section, _, leaf = key.rpartition(".")
        if section in ("train", "search", "fit" if command == "sweep" else "sweep"):
            continue
        default = getattr(getattr(recipe, section) if section else recipe, leaf)
        line = next((line for line in help_text.splitlines() if f"{option.switch} " in line), "")
        if line and default not in (None, (), False):
            values = default if isinstance(default, tuple) else (default,)
            shown = ",".join(f"{one:g}" if isinstance(one, float) else str(one) for one in values)
            assert f"Default: {shown}" in line, (key, line)
        assert not line or all(name in line for name in CHOICES.get(key, ()))


def test_one_word_of_data_is_understood(tmp_path, monkeypatch):
    from mixtura.features.store import HEADER_FILE

    monkeypatch.chdir(tmp_path)
    assert data_keys("digits")["data.kind"] == "digits"
    Path("digits").mkdir()
    assert data_keys("digits") == {"data.kind": "folder", "data.root": Path("digits")}
    (Path("digits") / HEADER_FILE).touch()
    assert data_keys("digits")["data.kind"] == "features"
    assert data_keys("list.CSV")["data.kind"] == "csv"
    assert data_keys("pack.npz")["data.kind"] == "npz"
    assert data_keys("folder")["data.kind"] == "folder"


def test_json_is_json_whatever_the_numbers(mixtura, task, evaluation):
    task("mixtura.tasks.evaluate", run=lambda *arguments: evaluation)
    answer = mixtura("evaluate", "shop", "--json")
    record = json.loads(answer.out, parse_constant=lambda word: pytest.fail(word))
    assert record["metrics"]["auroc_unknown"] is None
    assert record["metrics"]["top1"] == 0.5
    assert answer.err == ""
    assert plain({"a": evaluation.true, "b": evaluation.true[0]}) == {"a": [0, 1], "b": 0}
