"""Values of the wrong kind: one sentence with the option, the value and what is allowed, and no library's own words."""

import pytest
import typer.main

from mixtura.cli.app import build
from mixtura.formats import plain_words

WRONG = {
    ("--epochs", "abc"): "--epochs is 'abc', but it should be a whole number.",
    ("--epochs", "1.5"): "--epochs is '1.5', but it should be a whole number.",
    ("--epochs", "-1"): "--epochs is '-1', but it should be greater than or equal to 0.",
    ("--learning-rate", "fast"): "--learning-rate is 'fast', but it should be a number.",
    ("--n-seeds", "0"): "--n-seeds is '0', but it should be greater than or equal to 1.",
    ("--solver", "closed,sgd"): "--solver holds 'sgd', but each value should be 'closed', 'em' or 'gradient'.",
    ("--n-components", "1,1.5"): "--n-components holds 1.5, but each value should be a whole number.",
    (
        "--explained-variance",
        "0.5,2",
    ): "--explained-variance holds 2, but each value should be less than or equal to 1.",
    ("--explained-variance", "abc"): "'abc' is not a number. Write for example --explained-variance 0.1,0.2,...,1.",
    ("--explained-variance", "0.1,...,1"): "the last one after, as in 0.1,0.2,...,1.",
    ("--explained-variance", "inf"): "--explained-variance 'inf': 'inf' is not a finite number.",
    ("--n-components", "abc"): "Write for example --n-components 1,2,...,10.",
    ("--metric", "foo"): "--metric is 'foo', but it should be one of 'nll', 'accuracy'.",
    ("--search", "abc"): "--search is 'abc', but it should be a whole number.",
    ("--set", "sweep.heads=[]"): "--set sweep.heads is [], but it should hold at least one value.",
    ("--set", "sweep.heads=5"): "--set sweep.heads is 5, but it should be a list.",
    ("--set", "sweep.folds=maybe"): "--set sweep.folds is 'maybe', but it should be true or false.",
    (
        "--set",
        "split.fractions=[1,0,0,0]",
    ): "--set split.fractions is [1, 0, 0, 0], but it should hold at most 3 values.",
    ("--set", "split.fractions=[1]"): "--set split.fractions is [1], but it should hold more values.",
    ("--set", "head.name=[a]"): "--set head.name is ['a'], but it should be text.",
    ("--set", "head.shrinkage=abc"): "--set head.shrinkage is 'abc', but it should be a number or 'auto'.",
    ("--set", "projection=[{power: 1}]"): "--set projection: name is missing.",
}
LIBRARY = ("Input", "Tuple", "validation", "valid", "unable to", "instance of", "Value error", "parse")


@pytest.mark.parametrize("words", WRONG, ids=" ".join)
def test_an_ill_typed_value_is_one_sentence_with_option_value_and_what_is_allowed(mixtura, words):
    said = mixtura("sweep", "photos", *words, "--dry-run")
    assert said.code == 2
    assert WRONG[words] in said.err
    assert said.err.count("\n") == 1 and not any(word in said.err for word in LIBRARY)


def test_options_that_are_no_recipe_keys_and_equal_signs_are_named_too(mixtura):
    said = mixtura("predict", "model", "--neighbors=abc")
    assert said.code == 2 and "--neighbors is 'abc', but it should be a whole number." in said.err


def test_a_metric_without_a_search_and_a_search_to_save_are_refused(mixtura, tmp_path):
    where = ("sweep", "digits", "-o", str(tmp_path / "s"))
    alone = mixtura(*where, "--metric", "nll")
    assert alone.code == 2 and "--metric nll is for a search" in alone.err
    both = mixtura(*where, "--search", "3", "--save", str(tmp_path / "m"))
    assert both.code == 2 and "Leave out --search, or --save." in both.err
    assert not (tmp_path / "s").exists()


def test_what_no_pattern_knows_is_said_as_it_stands():
    assert plain_words("fractions must sum to 1, got a sum of 0.7") == "fractions must sum to 1, got a sum of 0.7"


def _options(group, prefix=()):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _options(command, (*prefix, name))
        else:
            yield from (((*prefix, name), one) for one in command.params)


PARAMETERS = list(_options(typer.main.get_command(build())))
WORDS = [(words, one) for words, one in PARAMETERS if one.nargs != 0 and not getattr(one, "is_flag", False)]
NUMBERS = [("serve", "--reads"), ("serve", "--writes"), ("search", "--limit")]


@pytest.mark.parametrize(("words", "one"), WORDS, ids=lambda value: str(getattr(value, "name", value)))
@pytest.mark.parametrize("empty", ["", " "])
def test_no_value_of_any_command_may_be_empty(mixtura, tmp_path, monkeypatch, words, one, empty):
    """An unset shell variable is an empty word, which pathlib takes for the current folder."""
    monkeypatch.chdir(tmp_path)
    given = (one.opts[0], empty) if one.param_type_name == "option" else (empty,) * 3
    answer = mixtura(*words, *given)
    assert answer.code == 2 and answer.err.count("\n") == 1
    assert "is '', but it should not be empty" in answer.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("command", "flag"), NUMBERS)
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999"])
def test_no_number_of_any_command_may_be_infinite(mixtura, command, flag, value):
    answer = mixtura(command, "x", f"{flag}={value}")
    assert answer.code == 2 and answer.err.count("\n") == 1
    assert f"{flag} is '{float(value)}', but it should be" in answer.err or f"{flag} is '{value}'" in answer.err


COUNTS = [
    *[("fit", flag) for flag in ("--size", "--batch-size", "--workers", "--n-components", "--epochs", "--seed")],
    *[("fit", f"--set={key}") for key in ("fit.batch_size", "fit.patience", "head.rank")],
    *[("sweep", flag) for flag in ("--n-seeds", "--jobs", "--n-components", "--search")],
    ("predict", "--neighbors"),
    ("search", "-k"),
    ("cluster", "--seed"),
    ("history", "--limit"),
    ("drift", "--days"),
    ("serve", "--reads"),
]


@pytest.mark.parametrize(("command", "flag"), COUNTS)
@pytest.mark.parametrize("value", ["1000000000000", "9" * 40])
def test_a_number_beyond_all_memory_is_one_sentence(mixtura, tmp_path, monkeypatch, command, flag, value):
    monkeypatch.chdir(tmp_path)
    given = [f"{flag}={value}"] if flag.startswith("--set") else [flag, value]
    answer = mixtura(command, "x", *given)
    assert answer.code == 2 and answer.err.count("\n") == 1
    assert "should be less than" in answer.err and flag.lstrip("-").removeprefix("set=") in answer.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")])
def test_a_lack_of_memory_is_no_fault_of_mixtura(mixtura, task, error):
    def run(*arguments):
        raise error

    task("mixtura.tasks.predict", run=run)
    answer = mixtura("predict", "shop", "a.jpg")
    assert answer.code == 71 and "not enough memory" in answer.err and answer.err.count("\n") == 1
