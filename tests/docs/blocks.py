"""The blocks of code of a page, and what their first line and their commands say of how to run them."""

import re
from dataclasses import dataclass
from pathlib import Path

BLOCK = re.compile(
    r"(?:<!-- (?P<note>[a-z ]+):[^>]*-->\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE
)
SHELLS = frozenset({"bash", "console", "sh"})
SHOWN = frozenset({"output", "text", "yaml", "json", "csv"})
"""What is not run; each line of ``output`` is one that a command before it prints."""
NEEDS = "# needs "
"""First line of a block that cannot run here, for its readers and for the tests: ``# needs a weight file``."""


@dataclass(frozen=True)
class Block:
    """``line`` is that of its first line of code in the page."""

    note: str
    language: str
    code: str
    line: int = 0

    @property
    def needs(self):
        """What the block needs that is not here, or nothing."""
        first = self.code.partition("\n")[0]
        return first.removeprefix(NEEDS) if first.startswith(NEEDS) else ""

    @property
    def serves(self):
        """Whether it runs until it is stopped."""
        return self.language in SHELLS and self.code.startswith("mixtura serve ")

    @property
    def asks_a_service(self):
        """Whether it wants a service that runs."""
        return self.language in SHELLS and self.code.startswith("curl ")


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in their order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(match["note"] or "", match["language"], match["code"], text.count("\n", 0, match.start("code")) + 1)
        for match in BLOCK.finditer(text)
    ]


def lines(code: str) -> list[str]:
    """The commands of a shell block, without comments."""
    joined = code.replace("\\\n", " ")
    plain = [re.split(r"(?:^|  )#", line)[0].strip() for line in joined.splitlines()]
    return [line for line in plain if line]
