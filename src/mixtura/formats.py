"""Format numbers and names for people; a percentage has no space."""

import math
import re
from collections.abc import Sequence

from mixtura.errors import UsageError


def reason_of(error: BaseException) -> str:
    """What a library says of an error, as the middle of a sentence: its first sentence, without the full stop.

    >>> reason_of(RuntimeError("No GPU. Try again.")), reason_of(ValueError("1.5 is odd")), reason_of(OSError())
    ('No GPU', '1.5 is odd', 'OSError')
    """
    said = str(error).strip().splitlines() or [type(error).__name__]
    return re.split(r"\.(?:\s|$)", said[0], maxsplit=1)[0]


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


def rate(value: object) -> float:
    """A rate from a number or a text, as a share.

    >>> rate("5%"), rate("0.05"), rate(0.05)
    (0.05, 0.05, 0.05)

    Raises:
        ValueError: it is not above 0 and below 1; the message says what it should be.
    """
    text = str(value).strip()
    try:
        # as decimal places: 5.5% is 0.055, not 0.055000000000000004
        found = float(f"{text[:-1].strip()}e-2" if text.endswith("%") else text)
    except ValueError:
        found = math.nan
    if isinstance(value, bool) or not 0 < found < 1:
        raise ValueError("should be above 0 and below 1, as in 0.05 or 5%")
    return found


def rate_of(value: object, name: str) -> float:
    """The same, with an error that names the option.

    Raises:
        UsageError: it is not above 0 and below 1.
    """
    try:
        return rate(value)
    except ValueError as error:
        raise UsageError(f"{name} is {value!r}, but it {error}.") from None


def interval(low: float, high: float) -> str:
    """An interval of shares.

    >>> interval(0.897, 0.924)
    '89.7–92.4%'
    """
    return f"{100 * low:.1f}–{100 * high:.1f}%"


def compared(difference: float, p: float) -> str:
    """A difference of two shares in points, with its p-value, beside the name of what it is compared with.

    >>> compared(-0.012, 0.031), compared(0.003, 0.0002), compared(0.0, 1.0), compared(-0.0001, 0.996)
    ('1.2 points below, p = 0.03', '0.3 points above, p < 0.001', 'equal, p = 1', '0.01 points below, p = 1')
    """
    chance = "p < 0.001" if p < 0.001 else f"p = {p:.{3 if p < 0.01 else 2}f}".rstrip("0").rstrip(".")
    points = abs(100 * difference)
    if points < 0.005:
        return f"equal, {chance}"
    return f"{points:.{1 if points >= 0.05 else 2}f} points {'above' if difference > 0 else 'below'}, {chance}"


def count(number: int, noun: str = "", plural: str = "") -> str:
    """A count with its noun.

    >>> count(1, "photo"), count(12034, "photo"), count(2, "class", "classes"), count(1000)
    ('1 photo', '12,034 photos', '2 classes', '1,000')
    """
    word = noun if number == 1 else plural or (noun and noun + "s")
    return f"{number:,} {word}".strip()


def with_article(name: str) -> str:
    """The name of a file format after a or an, as it is spoken; capital letters are read one by one.

    >>> with_article("PDF"), with_article("SVG"), with_article("icon"), with_article(".heic"), with_article(".avif")
    ('a PDF', 'an SVG', 'an icon', 'a .heic', 'an .avif')
    """
    word = name.removeprefix(".").partition(" ")[0]
    spelled = word[:2].isupper() and len(word) < 4
    vowel = word[:1] in "AEFHILMNORSX" if spelled else word[:1].lower() in "aeiou"
    return f"{'an' if vowel else 'a'} {name}"


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


PLAIN_WORDS = (
    (r"^Value error, ", ""),
    (r"^Input should", "should"),
    (r"^(Tuple|List|Value) should have at least (\d+) items?.*", r"should hold at least \2 value(s)"),
    (r"^(Tuple|List|Value) should have at most (\d+) items?.*", r"should hold at most \2 value(s)"),
    (r"^String should", "should"),
    (r" or instance of .*", ""),
    (r", unable to .*", ""),
    (r", got a number with .*", ""),
    (r"^'.*' is not one of (.*)", r"should be one of \1"),
    (r"a valid (tuple|list)", "a list"),
    (r"a valid integer", "a whole number"),
    (r"a valid boolean", "true or false"),
    (r"a valid string", "text"),
    (r"a valid dictionary", "keys and values"),
    (r"a valid path", "a path"),
    (r"a valid ", "a "),
    (r"\b1 value\(s\)", "one value"),
    (r"value\(s\)", "values"),
)
"""What pydantic says, as patterns in order, and what we say."""


def plain_words(message: str) -> str:
    """What pydantic says of a value, in plain words, to follow the name and the value.

    >>> plain_words("Input should be a valid integer, unable to parse string as an integer")
    'should be a whole number'
    >>> plain_words("Tuple should have at least 1 item after validation, not 0")
    'should hold at least one value'
    """
    for pattern, words in PLAIN_WORDS:
        message = re.sub(pattern, words, message)
    return message


def listing(names: Sequence[str]) -> str:
    """Names as an English list.

    >>> listing(["coat"]), listing(["coat", "shirt"]), listing(["coat", "shirt", "bag"])
    ('coat', 'coat and shirt', 'coat, shirt and bag')
    """
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"
