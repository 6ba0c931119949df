"""What several tests need."""

import nbformat
import pytest

PARAMETERS = 'image_size = 96\nepochs = 4  # many with epochs=40\nrun_dir = "runs/default"'
CHECK = "from covid_utils.runs.settings import check_parameters\n\nsettings = check_parameters(globals())"


@pytest.fixture
def toy(tmp_path):
    """Function that writes a small notebook, shaped as the course's are; returns its path."""

    def write(name: str, *cells: str):
        parameters = nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})
        codes = [nbformat.v4.new_code_cell(source) for source in (CHECK, *cells)]
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Toy"), parameters, *codes])
        notebook.metadata.kernelspec = {"display_name": "Python 3", "language": "python", "name": "python3"}
        path = tmp_path / "notebooks" / f"{name}.ipynb"
        path.parent.mkdir(exist_ok=True)
        nbformat.write(notebook, path)
        return path

    return write
