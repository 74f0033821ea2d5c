"""``mixtura fewshot``: how well new classes are learned from a few photos each."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mixtura.cli import options
from mixtura.cli.evaluate import section_of
from mixtura.cli.lists import names_in
from mixtura.cli.output import Output
from mixtura.cli.progress import Bar
from mixtura.datasets import PROTOCOLS
from mixtura.errors import UsageError
from mixtura.files import is_file_at
from mixtura.pipeline.data_source import STORE_HEADER, read_by, without_effect

if TYPE_CHECKING:
    from mixtura.tasks.few_shot_classifiers import Material

EPISODES_PANEL, CLASSIFIERS_PANEL = "Episodes", "Classifiers"
NWAY, RUNS = "nway", "omniglot-runs"
PROPOSED, NO_CLASSES = "auto", "0"
SIZES = {"way": 5, "shot": 1, "query": 15, "episodes": 1000, "seed": 0}
"""Options that say how episodes are drawn, with their defaults."""

Place = Annotated[
    str, typer.Argument(metavar="PLACE", help="A model, a feature store, or labeled photos or sounds as for fit.")
]
NewClasses = Annotated[
    str | None,
    typer.Argument(
        metavar="DATA",
        help="After a model: labeled photos, or their feature store, of classes that it does not know. Default: "
        "the classes that its fit kept out (--unknown).",
        show_default=False,
    ),
]
Folder = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FOLDER", help="Folder for the page, the table, the episodes, features."),
]
Protocol = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help=f"{', '.join(PROTOCOLS)}: some classes, all, those of one superclass, or official runs. Default: nway.",
        rich_help_panel=EPISODES_PANEL,
    ),
]
Way = Annotated[
    int | None,
    typer.Option(metavar="N", help="Classes an episode, for nway. Default: 5.", rich_help_panel=EPISODES_PANEL),
]
Shot = Annotated[
    int | None,
    typer.Option(metavar="N", help="Photos of each to learn from. Default: 1.", rich_help_panel=EPISODES_PANEL),
]
Query = Annotated[
    int | None,
    typer.Option(metavar="N", help="Photos of each to test on. Default: 15.", rich_help_panel=EPISODES_PANEL),
]
Count = Annotated[
    int | None, typer.Option(metavar="N", help="Number of episodes. Default: 1000.", rich_help_panel=EPISODES_PANEL)
]
Seed = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="Same seed, same base classes and episodes. Default: 0.", rich_help_panel=EPISODES_PANEL
    ),
]
Part = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Draw from one part of the split only: train, val or test.", rich_help_panel=EPISODES_PANEL
    ),
]
Copies = Annotated[
    int,
    typer.Option(
        metavar="N",
        min=0,
        max=1000,
        help="Learn from N copies of each photo in its place, cut from it with a border and mirrored at random.",
        rich_help_panel=EPISODES_PANEL,
    ),
]
SkipSmall = Annotated[
    bool,
    typer.Option(
        "--skip-small", help="Leave out classes with too few photos for an episode.", rich_help_panel=EPISODES_PANEL
    ),
]
ListFile = Annotated[
    Path | None,
    typer.Option(
        "--list", metavar="FILE", help="Use the episodes.json of an earlier run.", rich_help_panel=EPISODES_PANEL
    ),
]
Classifier = Annotated[
    str,
    typer.Option(
        metavar="NAMES",
        help="Between commas: prototype, raw-prototype, nearest, cosine, knn, logistic, sgd-logistic, gaussian (what "
        "enroll does), calibration. The last two need base classes; all leaves out sgd-logistic, which is slow.",
        rich_help_panel=CLASSIFIERS_PANEL,
    ),
]
Normalize = Annotated[
    bool,
    typer.Option(
        "--normalize/--no-normalize",
        help="Scale features to unit length first, for all but raw-prototype, gaussian and calibration.",
        rich_help_panel=CLASSIFIERS_PANEL,
    ),
]
Tap = Annotated[
    Literal["backbone", "embedder"],
    typer.Option(
        help="Of a trained network, read its vectors or what its embedder makes of them.",
        rich_help_panel=CLASSIFIERS_PANEL,
    ),
]
Transductive = Annotated[
    bool,
    typer.Option(
        "--transductive",
        help="Classify the queries of an episode together, by prototype and gaussian, and report that apart.",
        rich_help_panel=CLASSIFIERS_PANEL,
    ),
]
Base = Annotated[
    str,
    typer.Option(
        metavar="N|SHARE|split|auto",
        help="Base classes, never in an episode: a number or share of all, those of the train part, or auto: those of "
        "the train part if the test part has others, else half of all.",
        rich_help_panel=CLASSIFIERS_PANEL,
    ),
]


@options.takes_flags(options.ENCODER | {"Photos": ("data.label", "data.follow_links")})
def fewshot(
    out: Output,
    place: Place,
    data: NewClasses = None,
    output: Folder = None,
    protocol: Protocol = None,
    way: Way = None,
    shot: Shot = None,
    query: Query = None,
    episodes: Count = None,
    seed: Seed = None,
    part: Part = None,
    skip_small: SkipSmall = False,
    copies: Copies = 0,
    list: ListFile = None,
    classifier: Classifier = "all",
    normalize: Normalize = True,
    tap: Tap = "backbone",
    transductive: Transductive = False,
    base: Base = PROPOSED,
    *,
    flags: dict[str, Any],
) -> None:
    """Measure how well new classes are learned from a few photos each.

    Draws many small tasks (episodes) of classes that are new, lets each classifier learn from the shots alone, and
    reports its mean accuracy on the queries, with a 95% interval over the episodes. All classifiers get the same
    episodes. Queries are classified one by one (inductive), or together with --transductive: never compare the two
    as equals. Features are extracted once.

    Examples:
      mixtura fewshot features/                  half of the classes as base
      mixtura fewshot features/ --shot 5 -o few/ also a page and the episodes
      mixtura fewshot shop new/                  how well enroll learns these
      mixtura fewshot photos/ -o few/ --protocol allway
      mixtura fewshot features/ --list few/episodes.json --json
    """
    sizes = {"way": way, "shot": shot, "query": query, "episodes": episodes, "seed": seed}
    if list is not None:
        _refuse_design(list, {"protocol": protocol, "skip-small": skip_small or None} | sizes)
    if way is not None and protocol not in (None, NWAY):
        raise UsageError("--way is for episodes of the protocol nway. Leave it out.")
    from mixtura.cli import few_shot_views as views
    from mixtura.cli.views import problem_record, problems_view
    from mixtura.datasets import episode_files
    from mixtura.datasets.episodes import Design
    from mixtura.tasks import fewshot as task
    from mixtura.training.kept_embedder import load_embedder

    design = Design(**{name: SIZES[name] if value is None else value for name, value in sizes.items()})
    listed = None if list is None else episode_files.read(list)
    protocol = protocol or NWAY
    if listed is not None:
        protocol, design = listed.protocol, listed.design  # which give the base classes of that run
    base = NO_CLASSES if protocol == RUNS and base == PROPOSED else base
    embedder = load_embedder(place) if tap == task.EMBEDDER else None  # before any photo is read
    material = _material(out, place, data, output, (base, design.seed), flags)
    material = replace(material, normalize=normalize, embedder=embedder)
    if part is not None:
        material = task.of_part(material, part)
    listed = listed or task.drawn(material, protocol, design, skip_small)
    names = _all_names(material, transductive) if classifier == "all" else names_in(classifier)
    if material.model is None and material.base is not None and "gaussian" in names:
        out.note("Fitting a model to the base classes, once; leave out gaussian to go without.")
    found = task.run(material, listed, names, transductive, copies)
    written = ()
    if output is not None:
        from mixtura.report.few_shot import few_shot_page
        from mixtura.tasks import few_shot_files

        page = few_shot_page(found, f"Few shots: {Path(data or place).name}")
        written = few_shot_files.write(output, found, listed, page)
    record = views.few_shot_record(found, written) | {"problems": [problem_record(one) for one in material.problems]}
    shown = [*views.few_shot_view(found, written), *problems_view(material.problems)]
    out.result(record, views.few_shot_lines(found), shown)


def _refuse_design(path: Path, given: dict[str, Any]) -> None:
    """Refuse options that say how episodes are drawn, where they are listed already."""
    for name, value in given.items():
        if value is not None:
            raise UsageError(f"--{name} has no effect: the episodes of {path} are drawn already. Leave it out.")


def _all_names(material: "Material", transductive: bool) -> "list[str]":
    """Return the classifiers that ``all`` stands for: those that the material has base classes for."""
    from mixtura.tasks import fewshot as task

    known = task.TRANSDUCTIVE_CLASSIFIERS if transductive else task.CLASSIFIERS
    left_out = {*task.ONLY_BY_NAME, *(task.NEED_BASE if material.base is None else ())}
    return [name for name in known if name not in left_out]


def _material(
    out: Output,
    place: str,
    data: str | None,
    output: Path | None,
    split: tuple[str, int],
    flags: dict[str, Any],
) -> "Material":
    """Return the features to draw from, with the base classes that ``split`` (of the classes, and its seed) gives."""
    from mixtura.model.bundle import CONFIG_FILE
    from mixtura.tasks import fewshot as task

    model, store = is_file_at(Path(place) / CONFIG_FILE), is_file_at(Path(place) / STORE_HEADER)
    if (model or store) and flags:
        switch = options.switch_of(next(iter(flags)))
        raise without_effect(switch, place) if data is None else read_by(switch, place)
    if model:
        if split[0] not in (PROPOSED, NO_CLASSES):
            raise UsageError("--base is for data: the base classes of a model are the classes that it knows.")
        return task.of_model(Path(place), section_of(data, None))
    if data is not None:
        raise UsageError(f"{place} is no model, so nothing can follow it. Give a model first, or the data alone.")
    if store:
        from mixtura.features.store import FeatureStore

        return task.of_features(FeatureStore.open(place).read(), *split)
    from mixtura.pipeline.factory import dataset_of
    from mixtura.tasks.collection import photos_of

    recipe = options.recipe_of(place, None, None, flags | ({} if output is None else {"output": output}))
    if output is None:
        dataset_of(recipe.data)  # whether there are photos at all
        raise UsageError(
            "Photos need a folder for their features. Name one with -o, as in: mixtura fewshot photos/ -o few"
        )
    with Bar(out, next="Drawing episodes") as bar:
        collection, problems = photos_of(recipe, bar)
    material = task.of_features(collection.features, *split)
    return replace(material, encoder=collection.encoder, problems=tuple(problems), photos=recipe.data)
