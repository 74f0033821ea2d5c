"""The section on the worst mistakes, each with its most similar stored photos."""

import base64
from dataclasses import dataclass

from mixtura.formats import count, percent
from mixtura.records.decision import Mistake
from mixtura.report.parts import PageContext, Section, Thumbnails, render

MAX_CARDS = 12
MAX_MISTAKES = 36
JPEG_MAGIC = b"\xff\xd8\xff"


@dataclass(frozen=True)
class Photo:
    """A thumbnail as a data URL, or an empty string if there is none, and the text below it."""

    address: str
    label: str
    note: str


@dataclass(frozen=True)
class Card:
    """One mistake, formatted for the page."""

    photo: Photo
    true: str
    answered: str
    probability: str
    typicality: str
    sentence: str
    source: str
    neighbors: tuple[Photo, ...]


def mistakes(material: PageContext) -> Section | None:
    """Return up to ``MAX_MISTAKES`` cards in the order of the evaluation; ``None`` if it has no mistakes."""
    found = material.evaluation.mistakes
    if not found:
        return None
    cards = [_card(mistake, material.thumbnails) for mistake in found[:MAX_MISTAKES]]
    body = render("mistakes.html", shown=cards[:MAX_CARDS], rest=cards[MAX_CARDS:])
    lead = (
        f"{count(len(cards), 'mistake')}, worst first. Below each are the most similar stored photos with their cosine "
        "similarity: a wrong label or an odd photo among them is often the cause."
    )
    return Section("The worst mistakes", lead, body)


def _card(mistake: Mistake, thumbnails: Thumbnails) -> Card:
    decision = mistake.decision
    neighbors = tuple(
        Photo(address(thumbnails(one.id)), one.label, f"{one.similarity:.2f}") for one in decision.neighbors[:3]
    )
    return Card(
        photo=Photo(address(thumbnails(decision.id)), mistake.true_label, mistake.source),
        true=mistake.true_label,
        answered=decision.label,
        probability=percent(decision.probability),
        typicality=percent(decision.typicality),
        sentence=decision.sentence,
        source=mistake.source,
        neighbors=neighbors,
    )


def address(jpeg: bytes | None) -> str:
    """Return a JPEG as a data URL; an empty string for anything else."""
    if not jpeg or not jpeg.startswith(JPEG_MAGIC):
        return ""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
