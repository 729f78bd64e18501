"""Every notebook's statements hold in quick mode, and its outputs are those of a whole run."""

import os
import sys
from pathlib import Path

import nbformat
import pytest


ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "experiments"))

from run_notebooks import execute, notebooks  # noqa: E402


NOTEBOOK = pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)


@NOTEBOOK
@pytest.mark.filterwarnings("ignore")  # of the client's event loop; the notebook's own warnings stay in its process
def test_agrees_with_its_theorem_in_quick_mode(path):
    before = dict(os.environ), path.read_bytes()
    execute(path, quick=True, write=False)
    assert (dict(os.environ), path.read_bytes()) == before


@NOTEBOOK
def test_is_committed_with_its_outputs(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    # Executed once, from the first cell to the last.
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert any("agree(" in cell.source or "at_most(" in cell.source for cell in cells)
