"""The example notebook holds its outputs, and runs from its first cell to its last with outputs like them."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NOTEBOOKS = pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.stem)


def outputs(notebook):
    """What each cell of code has given: what it printed, without its figures, and the kinds of its pictures."""
    found = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            given = [one for one in cell.outputs if one.get("name") != "stderr"]
            printed = "".join(re.sub(r"[\d.]+", "0", one.get("text", "")) for one in given)
            kinds = [kind for one in given for kind in one.get("data", {}) if kind != "image/jpeg"]
            found.append((printed, sorted(kinds)))
    return found


@NOTEBOOKS
def test_the_notebook_is_stored_with_its_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    kinds = [kind for _, kinds in outputs(notebook) for kind in kinds]
    assert kinds.count("image/svg+xml") == 1 and kinds.count("image/png") == 5
    given = [one for cell in notebook.cells for one in cell.get("outputs", [])]
    texts = [one.get("text", "") for one in given]
    texts += [text for one in given for kind, text in one.get("data", {}).items() if kind != "image/png"]
    text = "\n".join(texts)
    assert not re.search(r"(?<![\w:/])/\w+/\w", text), "an absolute path"
    closed, trained = (float(re.search(rf"{name} +accuracy ([\d.]+)%", text)[1]) for name in ("closed form", "trained"))
    assert 90 < closed < trained


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the kernel's own libraries
@NOTEBOOKS
def test_the_notebook_runs(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    stored = outputs(notebook)
    NotebookClient(notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    assert outputs(notebook) == stored
