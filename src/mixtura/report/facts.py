"""Versions and settings: whatever the evaluation says of its making, as small tables."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mixtura.report.parts import PageContext, Section, render


@dataclass(frozen=True)
class Group:
    """A table of facts below one heading; names come in the pieces between which a line may break."""

    name: str
    rows: tuple[tuple[list[str], str], ...]


def facts(material: PageContext) -> Section | None:
    """One table for each group of facts; nothing when there are none."""
    groups = grouped(material.evaluation.facts)
    if not groups:
        return None
    lead = "What is needed to make these figures again."
    return Section("Versions and settings", lead, render("facts.html", groups=groups))


def grouped(values: Mapping[str, Any]) -> list[Group]:
    """Plain values first, then a group for each mapping, its inner keys joined by dots."""
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
    return str(value)
