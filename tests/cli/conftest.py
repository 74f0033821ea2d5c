"""A command line in this process, and tasks that answer with plain records."""

import sys
import types
from dataclasses import dataclass

import numpy as np
import pytest

from mixtura.cli.app import run
from mixtura.records.decision import Decision, Evaluation, Interval


@dataclass
class Answer:
    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Unreadable:
    source: str
    reason: str
    message: str


@pytest.fixture
def mixtura(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)

    def call(*arguments):
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return call


@pytest.fixture
def task(monkeypatch):
    """Put a module of fake functions in the place of a real one; returns the list of calls."""
    calls = []

    def put(name, **functions):
        module = types.ModuleType(name)
        for function_name, function in functions.items():

            def record(*arguments, _function=function, **options):
                calls.append((arguments, options))
                return _function(*arguments, **options)

            setattr(module, function_name, record)
        monkeypatch.setitem(sys.modules, name, module)
        return calls

    return put


@pytest.fixture
def decision():
    def make(id="a.jpg", verdict="match", label="apple", **more):
        values = {
            "probability": 0.987,
            "typicality": 0.4,
            "reason": None,
            "sentence": f"Looks like {label}.",
            "subclass": 0,
        }
        return Decision(id=id, label=label, verdict=verdict, **(values | more))

    return make


@pytest.fixture
def unreadable():
    return Unreadable("b.jpg", "truncated", "b.jpg ends too early: it is damaged.")


@pytest.fixture
def evaluation():
    recall = {
        "apple": Interval(0.9, 0.8, 0.95, 50),
        "pear": Interval(0.5, 0.4, 0.6, 50),
        "kiwi": Interval(float("nan"), 0.0, 1.0, 0),
    }
    return Evaluation(
        classes=("apple", "pear", "kiwi"),
        ids=("1", "2"),
        sources=("1.jpg", "2.jpg"),
        true=np.array([0, 1]),
        predicted=np.array([0, 0]),
        probability=np.array([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0]]),
        typicality=np.array([0.5, 0.02]),
        score=np.array([1.0, -3.0]),
        verdict=np.array(["match", "unknown"]),
        metrics={"top1": 0.5, "balanced": 0.7, "ece": 0.004, "auroc_unknown": float("nan"), "false_reject": 0.06},
        intervals={"top1": Interval(0.5, 0.1, 0.9, 2)},
        recall=recall,
        alpha=0.05,
        facts={"encoder": "lite0"},
    )
