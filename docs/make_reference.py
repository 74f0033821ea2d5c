"""Write what pages say from where it comes: the program's own help, the recipe's keys, the measured figures.

    python docs/make_reference.py           a test compares the pages with what this would write

Figures are between ``<!-- figures: NAME -->`` and ``<!-- end -->`` and come from ``benchmarks/results``.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from mixtura.cli import COMMANDS
from mixtura.cli.options import described
from mixtura.recipe import Recipe, fields
from mixtura.sections import StepSection

DOCS = Path(__file__).parent
RESULTS = DOCS.parent / "benchmarks" / "results"
FIGURES = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
WIDTH = 96
QUIET = {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": str(WIDTH), "PYTHONIOENCODING": "utf-8"}


def help_of(command: str) -> str:
    """What ``mixtura COMMAND --help`` prints, without trailing blanks."""
    arguments = [sys.executable, "-m", "mixtura", *command.split(), "--help"]
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("FORCE_", "CLICOLOR", "GITHUB_"))}
    done = subprocess.run(arguments, env=kept | QUIET, capture_output=True, encoding="utf-8", check=True)
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    return "\n".join(lines).strip("\n")


def command_line() -> str:
    """The page of all commands."""
    pages = [
        "# Command line",
        "Each command answers `--help` with what stands here. This page is made by `docs/make_reference.py`.\n"
        "How a command ends is told in [exit codes](exit-codes.md).",
        f"```text\n{help_of('')}\n```",
    ]
    pages += [f"## mixtura {name}\n\n```text\n{help_of(name)}\n```" for name in COMMANDS]
    return "\n\n".join(pages) + "\n"


def default_of(value: object) -> str:
    """A default as YAML has it."""
    if value is None or isinstance(value, BaseModel):
        return ""
    shown = [plain(one) for one in value] if isinstance(value, tuple) else value
    return f"`{shown}`"


def plain(value: object) -> object:
    """A value, with a section as what is set in it."""
    return value.model_dump(exclude_unset=True) if isinstance(value, BaseModel) else value


def rows_of(section: type[BaseModel], prefix: str) -> list[str]:
    """One line of the table for each key of a section."""
    lines = []
    for key, field in fields(section, prefix):
        default = "needed" if field.is_required() else default_of(field.default)
        lines.append(f"| `{key}` | {default} | {described(key.replace('[]', ''), field)} |")
        for kind in get_args(field.annotation) if get_origin(field.annotation) in (tuple, dict) else ():
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                lines += rows_of(kind, f"{key}.")
    return lines


def recipe() -> str:
    """The page of all keys of a recipe."""
    lines = [
        "# Recipe keys",
        "",
        "A recipe is a YAML file; `--set KEY=VALUE` sets any key on the command line. Options win over the file,",
        "the file over the defaults. A key that does not exist is an error that names the nearest one. This page is",
        "made by `docs/make_reference.py`; `recipes/folder.yaml` shows every key in its place.",
        "",
        "| key | default | meaning |",
        "|---|---|---|",
    ]
    for name, field in Recipe.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            lines += rows_of(kind, f"{name}.")
        elif name == "projection":
            lines.append("| `projection` | `[]` | Steps on the features, in order: names, or names with options. |")
            lines += rows_of(StepSection, "projection[].")
        elif optional := [one for one in get_args(kind) if isinstance(one, type) and issubclass(one, BaseModel)]:
            lines.append(f"| `{name}` | | {field.description} |")
            lines += rows_of(optional[0], f"{name}.")
        else:
            lines.append(f"| `{name}` | {default_of(field.default)} | {described(name, field)} |")
    return "\n".join(lines) + "\n"


def results(pattern: str) -> dict[str, Any]:
    """The figures of all result files of a name, by what was measured."""
    found: dict[str, Any] = {}
    for path in sorted(RESULTS.glob(pattern)):
        found |= json.loads(path.read_text(encoding="utf-8"))["figures"]
    return found


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with its numbers to the right."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def accuracy() -> str:
    """Accuracy, next to the baselines on the same features."""
    found = results("accuracy_*.json")
    baselines = list(next(iter(found.values()))["baselines top1"])
    rows = []
    for name, v in found.items():
        shares = [f"{share:.1f}" for share in (v["mixtura top1"], *(v["baselines top1"][b] for b in baselines))]
        best = max(shares, key=float)
        rows.append([_split_of(name), *[f"**{s}**" if s == best else s for s in shares], v["chosen"]["family"]])
    return table(["", "mixtura", *baselines, "chosen"], rows)


def _split_of(name: str) -> str:
    """A dataset's name in prose: result files say "draw" for a random split."""
    return name.replace("draw", "split")


def tables() -> str:
    """Accuracy and log-loss on scikit-learn's tables."""
    found = json.loads((RESULTS / "tables.json").read_text(encoding="utf-8"))["tables"]
    models = [name for name, v in next(iter(found.values())).items() if isinstance(v, dict) and "accuracy" in v]
    rows = [[model, *[_cell(v[model]) for v in found.values()]] for model in models]
    return table(["accuracy (%) ± standard error; NLL", *found], rows)


def _cell(one: dict[str, Any]) -> str:
    return f"{one['accuracy']:.1f} ± {one['standard error']:.1f}; {one['nll']:.3f}"


def rejects() -> str:
    """The stated and the measured false-reject rate."""
    rows = [
        [
            _split_of(name),
            f"{v['false reject stated']:.1f}",
            f"{v['false reject measured']:.1f}",
            f"{v['binomial sigmas off']:+.1f}",
        ]
        for name, v in results("accuracy_*.json").items()
    ]
    return table(["test photos", "stated (%)", "measured (%)", "deviation (binomial standard errors)"], rows)


def _with_error(value: dict[str, float | None], digits: int) -> str:
    """A mean with its standard error, which one draw does not have."""
    error = value["se"]
    return f"{value['mean']:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")


def decisions() -> str:
    """Classes and verdicts with layers and size on and off, beside tuned rivals on the same features."""
    columns = {"top1": 1, "nll": 2, "ece": 1, "auroc": 1, "unknown found": 1, "false reject": 1}
    rows = []
    for path in sorted(RESULTS.glob("decisions_*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))["figures"]
        for method, v in found.items():
            cells = [_with_error(v[name], digits) for name, digits in columns.items()]
            rows.append([f"{path.stem[10:].replace('-', ' ')}: {method}", *cells])
    head = [
        "photos: model",
        "top-1 (%)",
        "NLL",
        "ECE (%)",
        "AUROC (%)",
        "strangers noticed (%)",
        "genuine rejected (%)",
    ]
    return table(head, rows)


def digits() -> str:
    """Telling digits that are not in the catalog from those that are."""
    found = results("unknown_digits.json")
    names = {
        "AUROC, mixtura": "mixtura, default score",
        "AUROC, distance to the 5 nearest known items": "5 nearest neighbors",
        "AUROC, largest probability of logistic regression": "logistic regression, largest probability",
        "measured false-reject rate (5% stated)": "false reject measured",
        "accuracy": "accuracy",
    }
    rows = [[shown, f"{found[key]['mean']:.1f}", f"{found[key]['sd']:.1f}"] for shown, key in names.items()]
    return table(["", "mean", "standard deviation"], rows)


def copies() -> str:
    """Which copies the near-duplicate hash finds."""
    found = json.loads((RESULTS / "near_duplicates.json").read_text(encoding="utf-8"))
    kinds = list(next(iter(found.values()))["share of copies found"])
    rows = [
        [kind.replace(" %", "%"), *[f"{100 * v['share of copies found'][kind]:.0f}" for v in found.values()]]
        for kind in kinds
    ]
    return table(["copies found (%)", *found], rows)


def heads() -> str:
    """Every head and baseline on every dataset: accuracy with its standard error, NLL and calibration error."""
    found = {
        path.stem[6:]: json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("heads_*.json"))
    }
    cells: dict[str, dict[str, str]] = {}
    for name, record in found.items():
        for row in [*record["heads"], *record["rivals"]]:
            error = f" ± {100 * row['accuracy_se']:.1f}" if row["accuracy_se"] is not None else ""
            words = f"{100 * row['accuracy']:.1f}{error}, {row['nll']:.2f}, {100 * row['ece']:.1f}"
            cells.setdefault(row["head"], {})[name] = words
    rows = [[head, *[own.get(name, "") for name in found]] for head, own in cells.items()]
    return table(["accuracy (%), NLL (nats), ECE (%)", *found], rows)


def enroll() -> str:
    """Products enrolled from three photos each, next to nearest mean and nearest neighbor."""
    found = json.loads((RESULTS / "enroll_grocery.json").read_text(encoding="utf-8"))["table"]
    said = {
        "fitted, accuracy after": "fitted classes, accuracy after enrolling",
        "fitted, lost": "fitted classes, accuracy lost by enrolling",
        "enrolled, accuracy": "enrolled classes, accuracy",
        "enrolled, accuracy at equal cost": "enrolled classes, accuracy at equal cost",
        "auroc known against unknown": "in the catalog or not, AUROC",
        "false rejects, all known": "false rejects (5% stated)",
        "unknown found": "strangers noticed",
    }
    own = {
        "fitted, accuracy after": "fitted: accuracy after",
        "fitted, lost": "fitted: lost",
        "enrolled, accuracy": "enrolled: accuracy",
        "enrolled, accuracy at equal cost": "enrolled: accuracy",
        "auroc known against unknown": "auroc by typicality",
    }
    columns = {"catalog": "", "nearest mean": "nearest mean: ", "nearest neighbor": "nearest neighbor: "}
    rows = []
    for key, words in said.items():
        cells = [found[prefix + key if prefix else own.get(key, key)] for prefix in columns.values()]
        rows.append([words, *(f"{100 * cell['mean']:.1f} ± {100 * cell['sd']:.1f}" for cell in cells)])
    about = (
        "Grocery Store: 61 classes fitted, 10 enrolled from three photos each, 10 strangers; official test split, "
        "percent, mean ± standard deviation over 5 random choices of classes and photos. At equal cost (fitted classes "
        "lose as much as with the catalog), the baselines' lift is chosen on the test split: an upper bound."
    )
    return f"{about}\n\n{table(['', *columns], rows)}"


def newcomers() -> str:
    """A newcomer's own photos that are found and those of others that are taken, by number of shots."""
    found = json.loads((RESULTS / "newcomers.json").read_text(encoding="utf-8"))["table"]
    rules = {"before": "no test", "now": "the test", "a = 1/2": "a = 1/2"}
    shares = {"found": "own found", "taken": "others taken"}
    rows = []
    for case in dict.fromkeys(key.split(", ")[0] for key in found):
        for shots in dict.fromkeys(key.split(", ")[1] for key in found):
            cells = [found[f"{case}, {shots}, {share}, {rule}"] for share in shares for rule in rules]
            rows.append([f"{case}, k = {shots.split()[0]}", *(f"{mean:.1f} ± {error:.1f}" for mean, error in cells)])
    head = ["percent ± standard error", *(f"{share}: {rule}" for share in shares.values() for rule in rules.values())]
    return table(head, rows)


def fewshot() -> str:
    """What enroll does beside other few-shot classifiers, on the same episodes."""
    found = json.loads((RESULTS / "fewshot.json").read_text(encoding="utf-8"))["stores"]
    rows = []
    for store, episodes in found.items():
        for named, row in episodes.items():
            shown = {name: f"{one['accuracy']:.1f}" for name, one in row["classifiers"].items()}
            best = max(shown, key=lambda name: float(shown[name]))
            rows.append([f"{store}: {named}", *(f"**{v}**" if name == best else v for name, v in shown.items())])
    names = ["enroll" if name == "gaussian" else name for name in row["classifiers"]]
    return table(["new classes, accuracy (%)", *names], rows)


def strangers() -> str:
    """How many strangers were foretold from left-out classes, and how many were noticed when they came."""
    rows = []
    for path in sorted(RESULTS.glob("strangers_*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        means = [sum(one[name] for one in found["each"]) / found["draws"] for name in ("estimate", "truth")]
        shares = [f"{100 * share:.1f}" for share in (*means, found["half_width"])]
        rows.append([path.stem[10:].replace("-", " "), *shares, f"{found['inside']} of {found['draws']}"])
    head = ["classes kept out of", "foretold (%)", "noticed (%)", "half the 90% interval (points)", "draws inside"]
    return table(head, rows)


def stated() -> str:
    """Measured false-reject rates on random splits, by number of classes and of photos a class."""
    rows: dict[str, dict[float, str]] = {}
    for path in sorted(RESULTS.glob("stated_rate_*.json")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            name = f"{path.stem[12:].replace('-', ' ')}, {cell['classes']} x {cell['rows a class']}"
            rows.setdefault(name, {})[cell["stated"]] = f"{cell['measured']:.1f} ± {cell['standard error']:.1f}"
    stated = sorted({rate for cells in rows.values() for rate in cells})
    head = ["classes x photos a class", *(f"{rate:g}% stated" for rate in stated)]
    return table(head, [[name, *(cells.get(rate, "–") for rate in stated)] for name, cells in rows.items()])


def subclasses() -> str:
    """How far training on classes tells apart the kinds within them, by set and method."""
    columns = ("intra", "allway", "knn", "class", "nmi", "purity")
    rows = []
    for name, v in results("coarse_scgm.json").items():
        shown = (v.get(column) for column in columns)
        cells = ["–" if one is None else _with_spread(one) for one in shown]
        rows.append([name.replace(", ", ": ", 1), str(v["intra"]["seeds"]), *cells])
    head = ["photos: method", "seeds", "within a class", "all-way", "kNN", "class", "NMI", "purity"]
    return table(head, rows)


def _with_spread(value: dict[str, float | None]) -> str:
    """A mean with its standard deviation over seeds, which one seed does not have."""
    spread = value["sd"]
    return f"{value['mean']:.1f}" + ("" if spread is None else f" ± {spread:.1f}")


def ladder() -> str:
    """Accuracy by what of the network is trained, at few and many photos a class."""
    path, rows = RESULTS / "training_ladder.json", []
    for setting, v in json.loads(path.read_text(encoding="utf-8"))["summary"].items():
        gap, error = v["auto minus the best"], v["standard error"]
        apart = f"{gap:+.1f}" + ("" if error is None else f" ± {error:.1f}")
        shares = [f"{v[rung]:.1f}" for rung in ("frozen", "last", "all", "auto")]
        rows.append([setting, str(len(v["auto took"])), *shares, apart])
    return table(["photos", "seeds", "`frozen`", "`last`", "`all`", "`auto`", "`auto` against the best"], rows)


MEASURED = {
    "newcomers": newcomers,
    "fewshot": fewshot,
    "strangers": strangers,
    "stated": stated,
    "enroll": enroll,
    "accuracy": accuracy,
    "tables": tables,
    "rejects": rejects,
    "decisions": decisions,
    "digits": digits,
    "copies": copies,
    "heads": heads,
    "subclasses": subclasses,
    "ladder": ladder,
}
MADE = {"reference/cli.md": command_line, "reference/recipe.md": recipe}


def with_figures(text: str) -> str:
    """A page with its figures as they were measured last."""
    return FIGURES.sub(lambda found: f"{found[1]}\n{MEASURED[found[2]]()}\n\n{found[3]}", text)


def pages() -> dict[Path, str]:
    """What every page that is made, or that holds figures, should say."""
    made = {DOCS / name: make() for name, make in MADE.items()}
    written = {path: path.read_text(encoding="utf-8") for path in DOCS.rglob("*.md") if path not in made}
    return made | {path: with_figures(text) for path, text in written.items() if FIGURES.search(text)}


def main() -> None:
    """Write every page."""
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
