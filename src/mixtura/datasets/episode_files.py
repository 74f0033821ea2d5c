"""Keep a drawn list of episodes in a file, and read it back: JSON with the ids of the items and indices into them."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mixtura.datasets.episodes import Design, Episode, EpisodeList
from mixtura.datasets.paths import readable
from mixtura.errors import DataError, MixturaError, NoInput

LIST_LAYOUT = 1


def to_bytes(listed: EpisodeList) -> bytes:
    """A list as the content of a file; only the items that occur in it are named."""
    used = np.unique(np.concatenate([np.hstack([e.support, e.query]).ravel() for e in listed.episodes]))
    place = np.zeros(len(listed.ids), dtype=np.int64)
    place[used] = np.arange(len(used))
    content = {
        "layout": LIST_LAYOUT,
        "protocol": listed.protocol,
        "design": asdict(listed.design),
        "classes": listed.classes,
        "ids": [listed.ids[row] for row in used.tolist()],
        "episodes": [_record(episode.at(place)) for episode in listed.episodes],
    }
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def _record(episode: Episode) -> dict[str, Any]:
    return {name: getattr(episode, name).tolist() for name in ("classes", "support", "query")}


def read(path: Path) -> EpisodeList:
    """Read a list.

    Raises:
        NoInput: the file cannot be read.
        DataError: it is no list of episodes, or an item occurs twice in an episode.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["layout"] != LIST_LAYOUT:
            raise DataError(f"{readable(str(path))}: is of another layout than {LIST_LAYOUT}. Draw another list.")
        ids, classes = tuple(map(str, content["ids"])), tuple(map(str, content["classes"]))
        episodes = tuple(_episode(one, len(ids), len(classes)) for one in content["episodes"])
        if not episodes:
            raise ValueError("no episodes")
        return EpisodeList(str(content["protocol"]), Design(**content["design"]), ids, classes, episodes)
    except OSError as error:
        raise NoInput(f"{readable(str(path))}: cannot be read ({error.strerror}). Check the path.") from error
    except MixturaError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{readable(str(path))}: is no list of episodes as mixtura fewshot writes it ({error}). Draw another list."
        ) from error


def _episode(record: dict[str, Any], items: int, classes: int) -> Episode:
    """An episode whose indices exist and do not repeat."""
    own, support, query = (np.array(record[name], dtype=np.int64) for name in ("classes", "support", "query"))
    if own.ndim != 1 or support.ndim != 2 or query.ndim != 2 or not len(own) == len(support) == len(query) > 0:
        raise ValueError("its classes, support and query do not fit together")
    rows = np.hstack([support, query]).ravel()
    for index, size in ((own, classes), (rows, items)):
        if index.min() < 0 or index.max() >= size or len(np.unique(index)) < len(index):
            raise ValueError("an index occurs twice in an episode or does not exist")
    return Episode(own, support, query)
