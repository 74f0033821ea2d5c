"""Whoever follows a page literally notices what is wrong with it."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from follow import PAGES, follow, unknown_names

RIGHT = """
Make it: `made/a.csv` holds `--json`; see `mixtura predict`, `src/mixtura/names.py` and `data.kind`.

```bash
mkdir made && echo "3 of 41 items, 7.5% to over 99.9%"  # a comment
touch made/a.csv
```

```output
12 of 9 items, 91.2 to 95%
```

```python
from pathlib import Path

number = len(list(Path("made").iterdir()))
```

```bash
# needs the network
curl https://example.org
```

```python
assert number == 1
print("done")
```

```text
nothing that runs
```
"""


def followed(text, place):
    page = place / "page.md"
    page.write_text(text)
    (place / "work").mkdir()
    return follow(page, place / "work", dict(os.environ))


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda page: page.stem)
def test_commands_and_options_that_pages_name_exist(page):
    assert not unknown_names(page)


def test_options_of_an_example_are_known_where_the_page_names_it(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("`examples/gmml_mnist.py` takes `--lr` and `--jason`; there is `examples/absent.py`.\n")
    assert unknown_names(page) == ["there is no --jason (--jason)"]
    page.write_text("Nobody takes `--lr`.\n")
    assert unknown_names(page) == ["there is no --lr (--lr)"]


def test_a_page_that_is_right(tmp_path):
    assert followed(RIGHT, tmp_path) == ([], ["page.md:20: needs the network"])


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("touch made/a.csv", "touch nowhere/a.csv", "page.md:5: exit code 1"),
        ("touch made/a.csv", "true | false | true\ntouch made/a.csv", "page.md:5: exit code 1"),
        ("touch made/a.csv", "echo $NO_SUCH_NAME", "page.md:5: exit code 1"),
        ("12 of 9 items", "12 of 9 things", "page.md:10: no command has printed: 12 of 9 things, 91.2 to 95%"),
        ("number == 1", "number == 2", "page.md:25: Python failed"),
        ("number == 1", "unheard_of", "NameError"),
        ("number == 1", "exit()", "Python failed"),
        ("`made/a.csv`", "`made/b.csv`", "there is no made/b.csv"),
        ("names.py`", "no_names.py`", "there is no src/mixtura/no_names.py"),
        ("`--json`", "`--jason`", "there is no --jason"),
        ("`mixtura predict`", "`mixtura foretell shop`", "there is no mixtura foretell"),
        ("nothing that runs", "mixtura fit photos/ -o shop", "commands stand in a block that is not run"),
        ("```text", "```basic", "what is 'basic'?"),
        ("\\n```bash\\n# needs", "\\n<!-- not run: why -->\\n```bash\\n# needs", "a hidden note"),
        ("# needs the network", "# wants the network", "page.md:20: exit code"),
    ],
)
def test_a_page_that_is_wrong(tmp_path, old, new, said):
    old, new = old.replace("\\n", "\n"), new.replace("\\n", "\n")
    assert old in RIGHT
    text = RIGHT.replace(old, new).replace("https://example.org", "http://127.0.0.1:9")
    [fault], _ = followed(text, tmp_path)
    assert said in fault


def test_a_service_that_does_not_serve(tmp_path):
    (tmp_path / "mixtura").write_text("#!/bin/sh\necho port 8000 is in use\nexit 64\n")
    (tmp_path / "mixtura").chmod(0o755)
    (tmp_path / "page.md").write_text("```bash\nmixtura serve shop\n```\n")
    search = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    [fault], _ = follow(tmp_path / "page.md", tmp_path, os.environ | {"PATH": search})
    assert "page.md:2: it does not serve\nport 8000 is in use" in fault
