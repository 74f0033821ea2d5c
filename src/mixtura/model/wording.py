"""Word decisions as plain sentences with their numbers."""

from mixtura.formats import short_percent
from mixtura.scores.verdict import BETWEEN_CLASSES, FAR_FROM_ALL


def advice(verdict: str, reason: str, labels: tuple[str, str]) -> str | None:
    """How to get the item accepted; ``None`` for a match."""
    first, second = labels
    if verdict == "match":
        return None
    if reason == FAR_FROM_ALL:
        return "If it is new, enroll it as a product of its own; if it is not, take a photo with less around it."
    if reason == BETWEEN_CLASSES:
        return f"Take a photo that shows what sets {first} apart from {second}, or add this one to the right one."
    return f"If it is {first}, add this photo to it; if it is something else, enroll it as a product of its own."


def sentence(
    verdict: str,
    reason: str,
    labels: tuple[str, str],
    probabilities: tuple[float, float],
    typicality: float,
    limit: float,
) -> str:
    """One sentence on the decision and its reason.

    Args:
        verdict: match, unsure or unknown.
        reason: empty for a match.
        labels: best class and runner-up.
        probabilities: of these two, as shares.
        typicality: share of genuine items that look at least this unusual.
        limit: typicality below which an item is unknown, as a share.
    """
    first, second = labels
    one, two = map(short_percent, probabilities)
    usual, stated = short_percent(typicality), short_percent(limit)
    few = usual.replace("under", "fewer than") if typicality < 0.001 else f"only {usual}"
    rare = f"{few} of genuine items look this unusual" if typicality > 0 else "no genuine item is nearly this unusual"
    rare = f"{rare}; the limit is {stated}"
    if verdict == "match":
        return f"Matches {first} ({one}); {usual} of genuine items look at least this unusual."
    if verdict == "unsure":
        return f"In the catalog, but it could be {first} ({one}) or {second} ({two})."
    if reason == FAR_FROM_ALL:
        return f"Like nothing in the catalog: {rare}. The nearest class is {first}."
    if reason == BETWEEN_CLASSES:
        return f"Between {first} ({one}) and {second} ({two}), and {rare}."
    return f"Nearest to {first}, but unusual for it: {rare}."
