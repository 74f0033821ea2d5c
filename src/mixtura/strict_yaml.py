"""YAML without its surprises: no aliases, no tags, no duplicate keys, no keys that turn into booleans or dates.

Every value keeps its line number, so errors can point to it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from mixtura.errors import NoInput, RecipeError
from mixtura.files import is_file_at, is_there

MAX_BYTES = 1 << 20
"""Maximum file size in bytes: one mebibyte."""

Place = tuple[str | int, ...]
"""The position of a value: ``("projection", 0, "name")``."""


def read(path: Path) -> tuple[dict[str, Any], dict[Place, int]]:
    """The keys and values of a file, and the line (from 1) of each place.

    Raises:
        NoInput: the file is missing, not a regular file or not readable.
        RecipeError: see :func:`parse`; longer than :data:`MAX_BYTES`; not UTF-8.
    """
    return parse(_text(path), str(path))


def parse(text: str, where: str) -> tuple[dict[str, Any], dict[Place, int]]:
    """A YAML mapping, and the line (from 1) of each of its places.

    Raises:
        RecipeError: not YAML, not a mapping, a duplicate key, an alias or a tag.
    """
    data, lines = construct(text, where)
    if data is None:
        return {}, {}
    if not isinstance(data, dict):
        raise RecipeError(
            f"{where} holds a {type(data).__name__}, not keys. Write for example 'head: {{family: full}}'."
        )
    return data, lines


class _Loader(yaml.SafeLoader):
    """YAML without aliases: a file of a kilobyte cannot unfold into gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(
                problem="aliases (*name) are not allowed; write the value out", problem_mark=mark
            )
        return super().compose_node(parent, index)


def construct(text: str, where: str) -> tuple[Any, dict[Place, int]]:
    """Any YAML value, and the line of each of its places.

    Raises:
        RecipeError: as :func:`parse`, but the value may be of any kind.
    """
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        lines = dict(_places(node, (), where)) if node is not None else {}
        return (None if node is None else loader.construct_document(node)), lines
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise RecipeError(f"{where}{line}: {' '.join(filter(None, (error.context, error.problem)))}.") from error
    except (yaml.YAMLError, ValueError) as error:
        raise RecipeError(f"{where} is not YAML: {' '.join(str(error).split())}.") from error
    except RecursionError:
        raise RecipeError(f"{where} is nested too deeply. A recipe needs three levels at most.") from None
    finally:
        if loader is not None:
            loader.dispose()


def _places(node: yaml.Node, place: Place, where: str) -> Iterator[tuple[Place, int]]:
    yield place, node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            yield from _places(child, (*place, index), where)
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, child in node.value:
            line = key.start_mark.line + 1
            name = _key_name(key, where, line)
            if name in seen:
                dotted = ".".join(map(str, (*place, name)))
                raise RecipeError(
                    f"{where}, line {line}: key {dotted!r} stands on line {seen[name]} already. Keep one."
                )
            seen[name] = line
            yield from _places(child, (*place, name), where)
            yield (*place, name), line


def _key_name(key: yaml.Node, where: str, line: int) -> str:
    if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
        shown = key.value if isinstance(key, yaml.ScalarNode) else "a list or mapping"
        raise RecipeError(
            f"{where}, line {line}: {shown!r} cannot be a key. Keys are words, as in 'head: {{rank: 8}}'."
        )
    return key.value


def _text(path: Path) -> str:
    if not is_there(path):
        raise NoInput(f"There is no recipe {str(path)!r}. Check the path.")
    if not is_file_at(path):
        raise NoInput(f"{str(path)!r} is not a file. A recipe is a YAML file.")
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise NoInput(f"Cannot read the recipe {str(path)!r}: {error.strerror}.") from error
    if len(raw) > MAX_BYTES:
        raise RecipeError(f"{path} is longer than {MAX_BYTES} bytes: that is not a recipe.")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path} is not UTF-8 text (byte {error.start}). Save it as UTF-8.") from error
