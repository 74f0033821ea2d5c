"""Learn from one domain of Office-31, and test on another as well."""

import json

import numpy as np
import pytest
from PIL import Image

from mixtura.cli.app import run
from mixtura.datasets import office31

COLORS = {"back_pack": (200, 60, 60), "mug": (60, 200, 60), "pen": (60, 60, 200)}
PHOTOS = {"amazon": 8, "dslr": 2, "webcam": 4}
DOMAINS = ["--set", "data.domain=amazon", "--set", "data.second=webcam"]


@pytest.fixture(scope="module")
def office(tmp_path_factory):
    """Three domains of colored noise; in webcam, the colors of two classes are swapped."""
    root, rng = tmp_path_factory.mktemp("office31"), np.random.default_rng(0)
    for domain, number in PHOTOS.items():
        for label in COLORS:
            shown = {"mug": "pen", "pen": "mug"}.get(label, label) if domain == "webcam" else label
            for place in range(number):
                path = root / domain / "images" / label / f"frame_{place + 1:04d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                noise = rng.normal(COLORS[shown], 20, (16, 16, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(noise).save(path)
    return root


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(office31, "CLASSES", len(COLORS))
    monkeypatch.setattr(office31, "PUBLISHED", {name: number * len(COLORS) for name, number in PHOTOS.items()})


@pytest.fixture
def words(office, tmp_path):
    return ["fit", str(office), "-o", str(tmp_path / "m"), "--encoder", "pixels", *DOMAINS]


def test_the_second_domain_stands_beside_the_test_part(words, tmp_path, capsys):
    assert run([*words, "--json"]) == 0
    fitted = json.loads(capsys.readouterr().out)
    assert (fitted["domain"], fitted["items"], fitted["metrics"]["top1"]) == ("amazon", 6, 1.0)
    second = fitted["second"]
    assert (second["domain"], second["items"]) == ("webcam", 12)
    assert {name: one["value"] for name, one in second["recall"].items()} == {"back_pack": 1.0, "mug": 0.0, "pen": 0.0}
    assert json.loads((tmp_path / "m" / "metrics.json").read_text())["second"]["metrics"] == second["metrics"]
    assert "| right class, webcam | 33.3% |" in (tmp_path / "m" / "README.md").read_text()
    assert "Right class, webcam" in (tmp_path / "m" / "report.html").read_text()
    assert run(["evaluate", str(tmp_path / "m"), "--json"]) == 0
    evaluated = json.loads(capsys.readouterr().out)
    assert (evaluated["metrics"], evaluated["second"]["metrics"]) == (fitted["metrics"], second["metrics"])
    assert run(["evaluate", str(tmp_path / "m"), "-q"]) == 0
    assert f"\nsecond.top1\t{1 / 3:.6g}\n" in capsys.readouterr().out
    assert run(["evaluate", str(tmp_path / "m")]) == 0
    shown = capsys.readouterr().out
    assert shown.index("Domain amazon") < shown.index("6 test items") < shown.index("Domain webcam")


def test_a_second_domain_that_has_moved_leaves_the_figures_of_the_first(words, office, tmp_path, capsys):
    assert run([*words, "--json"]) == 0
    fitted = json.loads(capsys.readouterr().out)
    moved = office.rename(office.with_name("moved"))
    try:
        assert run(["evaluate", str(tmp_path / "m"), "--json"]) == 0
        evaluated = json.loads(capsys.readouterr().out)
        assert run(["evaluate", str(tmp_path / "m")]) == 0
        shown = " ".join(capsys.readouterr().out.split())
    finally:
        moved.rename(office)
    assert (evaluated["domain"], evaluated["metrics"]) == ("amazon", fitted["metrics"])
    assert "second" not in evaluated
    (problem,) = evaluated["problems"]
    assert problem["source"] == "webcam" and "holds no folder webcam" in problem["message"]
    assert "webcam: was not tested on." in shown


def test_without_a_second_domain_nothing_is_said_of_domains(words, office, tmp_path, capsys):
    assert run([*words[:-2], "--json"]) == 0
    assert not {"domain", "second"} & set(json.loads(capsys.readouterr().out))
    assert run(["evaluate", str(tmp_path / "m"), str(office / "dslr"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["items"] == 6


@pytest.mark.parametrize(
    ("domain", "second", "code", "said"),
    [
        ("amazon", "webca", 2, "has no domain 'webca'. Did you mean 'webcam'?"),
        ("amazon", "amazon", 2, "data.second 'amazon' is that of data.domain"),
        (None, "webcam", 2, "data.second 'webcam' needs a domain to learn from"),
        (None, None, 2, "Give the folder of one, as in "),
        ("amazon", "webcam", 66, "holds no folder webcam, the domain 'webcam'"),
    ],
)
def test_a_missing_domain_is_one_sentence_before_a_photo_is_read(office, tmp_path, capsys, domain, second, code, said):
    given = [f"data.{key}={name}" for key, name in (("domain", domain), ("second", second)) if name]
    words = ["fit", str(office), "-o", str(tmp_path / "m"), "--encoder", "pixels"]
    if code == 66:
        (office / "webcam").rename(tmp_path / "away")
    assert run([*words, *(word for one in given for word in ("--set", one))]) == code
    if code == 66:
        (tmp_path / "away").rename(office / "webcam")
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fit", "amazon", *DOMAINS], "Data of the kind 'folder' have no domains. Leave out data.domain."),
        (["sweep", ".", *DOMAINS], "A sweep tests on no second domain. Leave out data.second"),
    ],
)
def test_domains_that_have_no_effect_are_refused(office, tmp_path, capsys, words, said):
    command, place, *more = words
    assert run([command, str(office / place), "-o", str(tmp_path / "m"), "--encoder", "pixels", *more]) == 2
    assert said in capsys.readouterr().err
