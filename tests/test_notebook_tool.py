"""tools/notebooks.py: what counts as drift, and what is written. No kernel runs here; `make notebooks` runs them."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

TOOL = Path(__file__).parents[1] / "tools" / "notebooks.py"
tool = SimpleNamespace(**runpy.run_path(str(TOOL), run_name="notebooks"))

SOURCE = """# %% [markdown]
# # A title
#
# The adjoint of $X W$ in $W$ is $X^\\top dY$.

# %%
import numpy as np

X = np.eye(3)

# %%
X.T @ X
"""


def written(text=SOURCE):
    """What lies on disk for a source: through the notebook format and back, with outputs and counts as after a run."""
    notebook = tool.read_source(text)
    for count, cell in enumerate((cell for cell in notebook.cells if cell.cell_type == "code"), start=1):
        cell.execution_count = count
        cell.metadata["execution"] = {"iopub.status.busy": "2020-01-01T00:00:00"}
        cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=f"result {count}\n")]
    return nbformat.reads(nbformat.writes(tool.stable(notebook)), as_version=4)


def test_a_source_and_its_executed_notebook_agree():
    assert tool.drift(tool.read_source(SOURCE), written()) is None


def test_outputs_ids_and_metadata_are_not_drift():
    other = written()
    other.metadata = {"kernelspec": {"name": "somebody's kernel"}}
    for cell in other.cells:
        cell.id = f"x{cell.id}"
    assert tool.drift(tool.read_source(SOURCE), other) is None


@pytest.mark.parametrize(
    ("edited", "message"),
    [
        (SOURCE.replace("np.eye(3)", "np.eye(4)"), "cell 2 differs from its source: 'import numpy as np'"),
        (SOURCE.replace("A title", "Another"), "cell 1 differs from its source: '# Another'"),
        (SOURCE.replace("# %% [markdown]", "# %%"), "cell 1 is markdown, its source is code"),
        (SOURCE + "\n# %%\nX.sum()\n", "it holds 3 cells, its source 4"),
        (SOURCE[: SOURCE.rindex("# %%")], "it holds 3 cells, its source 2"),
    ],
    ids=["code", "prose", "type", "added", "removed"],
)
def test_an_edited_source_is_drift(edited, message):
    assert tool.drift(tool.read_source(edited), written()) == message


def test_cells_are_numbered_and_nothing_volatile_is_kept():
    source = SOURCE.replace("\n\n# %%", "\n# %%")  # jupytext notes a missing blank line in the cell's metadata
    first, second = (nbformat.writes(written(source)) for _ in range(2))
    assert first == second
    assert "2020-01-01" not in first
    notebook = nbformat.reads(first, as_version=4)
    nbformat.validate(notebook)
    assert [cell.id for cell in notebook.cells] == ["cell-01", "cell-02", "cell-03"]
    assert all(cell.metadata == {} for cell in notebook.cells)
    assert notebook.metadata == tool.METADATA


def test_tags_are_kept():
    notebook = tool.read_source('# %% tags=["hide-input"]\n1 + 1\n')
    assert notebook.cells[0].metadata == {"tags": ["hide-input"]}


def test_the_file_header_of_jupytext_does_not_reach_the_notebook():
    header = "# ---\n# jupyter:\n#   jupytext:\n#     text_representation:\n#       jupytext_version: 0.0.1\n# ---\n\n"
    notebook = tool.read_source(header + SOURCE)
    assert notebook.metadata == tool.METADATA
    assert tool.drift(notebook, written()) is None


def test_what_a_cell_writes_to_stderr_is_reported_with_its_cell():
    notebook = written()
    assert tool.stderr_text(notebook) is None
    notebook.cells[2].outputs = [nbformat.v4.new_output("stream", name="stderr", text="UserWarning: careful\n")]
    assert tool.stderr_text(notebook) == "cell 3 ('X.T @ X') wrote to stderr:\nUserWarning: careful\n"


def test_check_names_a_missing_a_broken_and_a_stale_notebook(tmp_path, capsys):
    (tmp_path / "one.py").write_text(SOURCE)
    assert tool.main(["--check", "--folder", str(tmp_path)]) == 1
    assert "one: one.ipynb is missing; `make notebooks` writes it" in capsys.readouterr().err

    (tmp_path / "one.ipynb").write_text("<<<<<<< ours")
    assert tool.main(["--check", "--folder", str(tmp_path)]) == 1
    assert "one: one.ipynb is not a notebook" in capsys.readouterr().err

    nbformat.write(written(SOURCE.replace("eye(3)", "eye(4)")), tmp_path / "one.ipynb")
    assert tool.main(["--check", "--folder", str(tmp_path)]) == 1
    assert "one: one.ipynb is stale: cell 2 differs" in capsys.readouterr().err


def test_notebooks_without_a_source_fail(tmp_path, capsys):
    (tmp_path / "one.py").write_text(SOURCE)
    (tmp_path / "renamed.ipynb").write_text("{}")
    assert tool.main(["--check", "--folder", str(tmp_path)]) == 1
    assert "renamed.ipynb: has no source beside it" in capsys.readouterr().err


def test_an_empty_folder_and_an_unknown_name_fail(tmp_path, capsys):
    assert tool.main(["--folder", str(tmp_path)]) == 1
    assert "no notebook sources in" in capsys.readouterr().err
    assert tool.main(["--folder", str(tmp_path), "unheard_of"]) == 1
    assert "unheard_of" in capsys.readouterr().err
