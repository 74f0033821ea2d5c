"""A whole inbox at a stated false-discovery rate: SciPy's verdicts, and what the command line promises."""

import json

import numpy as np
import pytest
from PIL import Image
from scipy.stats import false_discovery_control

import mixtura
from mixtura.catalog import Catalog
from mixtura.cli.app import run as command
from mixtura.datasets.items import Problem
from mixtura.errors import UsageError
from mixtura.model import bundle
from mixtura.model.decide import decide
from mixtura.tasks import predict

COLORS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 210)}


def photo(rng, color):
    return Image.fromarray(rng.normal(color, 25, (40, 40, 3)).clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A model of three colors, and an inbox: twelve of its colors, ten of another, and a file that is no photo."""
    folder, rng = tmp_path_factory.mktemp("inbox"), np.random.default_rng(0)
    for name, color in COLORS.items():
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(60):
            photo(rng, color).save(folder / "photos" / name / f"{number}.png")
    (folder / "inbox").mkdir()
    for number in range(22):
        color = [*COLORS.values()][number % 3] if number < 12 else (230, 230, 230)
        photo(rng, color).save(folder / "inbox" / f"{number:02d}.png")
    (folder / "inbox" / "x.png").write_text("no photo")
    settings = {"encoder.name": "tiny", "encoder.size": 32, "extract.dtype": "float32"}
    mixtura.fit(str(folder / "photos"), output=str(folder / "shop"), settings=settings)
    return folder


@pytest.fixture
def inbox(shop):
    return sorted((shop / "inbox").iterdir())


@pytest.mark.parametrize("catalog", [False, True])
@pytest.mark.parametrize("rate", [0.05, "20%"])
def test_the_verdicts_are_those_of_scipy_whatever_the_batches(shop, inbox, monkeypatch, rate, catalog):
    if catalog:
        Catalog.open(shop / "shop").close()
    model = mixtura.load(shop / "shop")
    each = model.predict(inbox)
    assert isinstance(each[-1], Problem)
    wanted = false_discovery_control([one.typicality for one in each[:-1]]) <= (0.05 if rate == 0.05 else 0.2)
    assert 8 <= wanted.sum() < 22
    found = model.predict(inbox, false_discovery_rate=rate)
    assert [one.verdict == "unknown" for one in found[:-1]] == wanted.tolist()
    assert {one.false_discovery_rate for one in found[:-1]} == {0.05 if rate == 0.05 else 0.2}
    assert [one.label for one in found[:-1]] == [one.label for one in each[:-1]] and found[-1] == each[-1]
    assert all((one.typicality < one.threshold) == (one.verdict == "unknown") for one in found[:-1])
    monkeypatch.setattr(predict, "BATCH_SIZE", 5)
    again = model.predict(inbox, false_discovery_rate=rate)
    assert [one.verdict for one in again[:-1]] == [one.verdict for one in found[:-1]]


def test_a_batch_of_one_is_judged_by_the_rate_itself(shop, inbox):
    for path in (inbox[0], inbox[-2]):
        alone, plain = (mixtura.load(shop / "shop").predict([path], false_discovery_rate=r)[0] for r in (0.05, None))
        assert alone.verdict == plain.verdict and alone.threshold == pytest.approx(0.05)
        assert plain.false_discovery_rate is None and plain.threshold == 0.05
    assert mixtura.load(shop / "shop").predict([], false_discovery_rate=0.05) == []
    assert isinstance(mixtura.load(shop / "shop").predict(inbox[-1:], false_discovery_rate=0.05)[0], Problem)


def test_no_rows_have_no_decisions(shop):
    model = bundle.from_pretrained(shop / "shop")
    assert decide(model, [], np.zeros((0, model.dimension), dtype=np.float32), false_discovery_rate=0.1) == []


@pytest.mark.parametrize("rate", [0.0, 1.0, "0", "100%", "-5%", "often", "%"])
def test_a_wrong_rate_is_one_sentence(shop, inbox, capsys, rate):
    said = "but it should be above 0 and below 1, as in 0.05 or 5%."
    with pytest.raises(UsageError, match=f"false_discovery_rate is {rate!r}, {said}"):
        mixtura.predict(shop / "shop", inbox, false_discovery_rate=rate)
    assert command(["predict", str(shop / "shop"), str(inbox[0]), f"--false-discovery-rate={rate}"]) == 2
    assert capsys.readouterr().err == f"mixtura: --false-discovery-rate is {str(rate)!r}, {said}\n"


def told(capsys, *words):
    code = command(["predict", *map(str, words)])
    return code, capsys.readouterr().out


def test_the_command_says_what_is_promised(shop, inbox, capsys):
    model, photos = shop / "shop", inbox[:-1]
    code, out = told(capsys, model, shop / "inbox", "--false-discovery-rate", "20%")
    unknown = out.count(" unknown ")
    assert code == 66 and unknown > 9
    number = "fewer than one" if unknown < 5 else f"{unknown / 5:.0f}"
    assert f"Of the {unknown} files called unknown, at most 20% ({number}) are expected to be genuine." in out
    assert told(capsys, model, shop / "inbox")[1].count("expected") == 0
    alone = told(capsys, model, photos[-1], "--false-discovery-rate", "0.05")[1]
    assert "1 file is called unknown. Of files called unknown so, at most 5% are expected to be genuine." in alone
    none = told(capsys, model, *photos[:12], "--false-discovery-rate", "0.1%")[1]
    assert "No file is called unknown: the lowest typicality is" in none
    assert "At a false-discovery rate of 0.1%, a single one of 12 files would need 0.0083% or less." in none
    records = json.loads(told(capsys, model, *photos, "--false-discovery-rate", "5%", "--json")[1])
    assert {record["false_discovery_rate"] for record in records} == {0.05}
    assert len({record["threshold"] for record in records}) == 1
    plain = json.loads(told(capsys, model, photos[0], "--json")[1])
    assert plain[0]["false_discovery_rate"] is None and plain[0]["threshold"] == 0.05
