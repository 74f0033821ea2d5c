"""Format numbers and names for people; a percentage has no space."""

import math
from collections.abc import Sequence


def percent(share: float, digits: int = 1) -> str:
    """A share as percent; what is not quite 0 or 100 never reads as 0 or 100.

    >>> percent(0.9117), percent(0.99996), percent(0.0), percent(0.0001), percent(1.0), percent(float("nan"))
    ('91.2%', '>99.9%', '0.0%', '<0.1%', '100.0%', 'n/a')
    """
    if math.isnan(share):
        return "n/a"
    text = f"{100 * share:.{digits}f}"
    step = 10.0**-digits
    if text == f"{100:.{digits}f}" and share < 1:
        return f">{100 - step:.{digits}f}%"
    if float(text) == 0 and share > 0:
        return f"<{step:.{digits}f}%"
    return f"{text}%"


def short_percent(share: float) -> str:
    """A share as percent inside a sentence, without a decimal that says nothing.

    >>> short_percent(0.003), short_percent(0.05), short_percent(0.43), short_percent(0.99999)
    ('0.3%', '5%', '43%', 'over 99.9%')
    """
    value = 100 * share
    if value > 99.9:
        return "over 99.9%"
    if value >= 10 or value == round(value):
        return f"{value:.0f}%"
    return f"{value:.1f}%" if value >= 0.1 else "under 0.1%"


def interval(low: float, high: float) -> str:
    """An interval of shares.

    >>> interval(0.897, 0.924)
    '89.7–92.4%'
    """
    return f"{100 * low:.1f}–{100 * high:.1f}%"


def count(number: int, noun: str = "", plural: str = "") -> str:
    """A count with its noun.

    >>> count(1, "photo"), count(12034, "photo"), count(2, "class", "classes"), count(1000)
    ('1 photo', '12,034 photos', '2 classes', '1,000')
    """
    word = noun if number == 1 else plural or (noun and noun + "s")
    return f"{number:,} {word}".strip()


def duration(seconds: float) -> str:
    """A time in words; ``seconds`` in seconds.

    >>> duration(0.42), duration(75.0), duration(7260.0)
    ('0.4 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def shorten(name: str, width: int) -> str:
    """A name cut in its middle, where numbered or suffixed names differ least.

    >>> shorten("Ankle boot", 12), shorten("ground-coffee-decaffeinated-500g", 16)
    ('Ankle boot', 'ground-cof…-500g')
    """
    if len(name) <= width:
        return name
    tail = width // 3 if width > 6 else 0
    return name[: width - 1 - tail] + "…" + (name[-tail:] if tail else "")


def listing(names: Sequence[str]) -> str:
    """Names as an English list.

    >>> listing(["coat"]), listing(["coat", "shirt"]), listing(["coat", "shirt", "bag"])
    ('coat', 'coat and shirt', 'coat, shirt and bag')
    """
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"
