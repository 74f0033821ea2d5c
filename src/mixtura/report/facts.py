"""The section on versions and settings: the facts of an evaluation, as small tables."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mixtura.records.strangers import ESTIMATE_FACT
from mixtura.report.parts import PageContext, Section, render


@dataclass(frozen=True)
class Group:
    """A table of facts with a heading; each name is split where a line may break."""

    name: str
    rows: tuple[tuple[list[str], str], ...]


def facts(material: PageContext) -> Section | None:
    """Return one table per group of facts; ``None`` if there are no facts."""
    groups = grouped({name: value for name, value in material.evaluation.facts.items() if name != ESTIMATE_FACT})
    if not groups:
        return None
    lead = "Everything you need to reproduce these figures."
    return Section("Versions and settings", lead, render("facts.html", groups=groups))


def grouped(values: Mapping[str, Any]) -> list[Group]:
    """Group the values: plain values first, then one group per mapping, with inner keys joined by dots."""
    plain = {key: value for key, value in values.items() if not isinstance(value, Mapping)}
    nested = {key: value for key, value in values.items() if isinstance(value, Mapping)}
    groups = [Group("run", tuple(_rows(plain)))] if plain else []
    return groups + [Group(str(key), tuple(_rows(value))) for key, value in nested.items() if value]


def _rows(values: Mapping[str, Any], prefix: str = "") -> list[tuple[list[str], str]]:
    rows = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            rows += _rows(value, f"{prefix}{key}.")
        else:
            rows.append((re.findall(r"[^._]*[._]*", f"{prefix}{key}")[:-1], _write(value)))
    return rows


def _write(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(_write(one) for one in value)
    if isinstance(value, Mapping):
        given = {key: one for key, one in value.items() if key != "name" and one not in (None, {})}
        said = "; ".join(f"{key} {_write(one)}" for key, one in given.items())
        name = _write(value["name"]) if "name" in value else ""
        return f"{name} ({said})" if name and said else name or said
    return str(value)
