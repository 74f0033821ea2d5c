"""What a few-shot evaluation leaves in a folder: the accuracies, the episodes, and the page."""

import csv
import io
from pathlib import Path

from mixtura import files
from mixtura.datasets import episode_files
from mixtura.datasets.episodes import EpisodeList
from mixtura.records.few_shot import FewShot

TABLE_FILE, EPISODES_FILE, PAGE_FILE = "fewshot.csv", "episodes.json", "fewshot.html"


def write(folder: Path, found: FewShot, listed: EpisodeList, page: str) -> tuple[Path, ...]:
    """Write the table, the list of episodes and the page, all or none; returns their paths.

    Raises:
        CannotWrite, OutOfSpace: they cannot be written; earlier ones are intact.
    """
    contents = {
        folder / TABLE_FILE: table(found).encode(),
        folder / EPISODES_FILE: episode_files.to_bytes(listed),
        folder / PAGE_FILE: page.encode(),
    }
    with files.new_folder(folder):
        files.write_all(contents)
    return tuple(contents)


def table(found: FewShot) -> str:
    """One line for each classifier and episode, as CSV."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["classifier", "episode", "way", "shot", "query", "accuracy", "setting", "tap"])
    for one in found.results:
        for number, (way, accuracy) in enumerate(zip(found.way.tolist(), one.accuracy.tolist(), strict=True)):
            row = [one.classifier, number, way, found.shot, found.query, f"{accuracy:.6f}", found.setting]
            writer.writerow([*row, found.facts["tap"]])
    return text.getvalue()
