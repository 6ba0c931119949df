"""What several tests need."""

import nbformat
import pytest

PARAMETERS = 'image_size = 96\nepochs = 4  # many with epochs=40\nrun_dir = "runs/default"'
CHECK = "from covid_utils.core.settings import check_parameters\n\nsettings = check_parameters(globals())"


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


@pytest.fixture(scope="session")
def toy_run(tmp_path_factory):
    """The folder of a run of a few steps from scratch on the toy slices, and its settings; ready to answer."""
    from toy import tiny_data

    from covid_utils.core.settings import Settings
    from covid_utils.labs import predictor
    from covid_utils.runs.load_or_train import new_model, train

    folder = tmp_path_factory.mktemp("run")
    settings = Settings(run_dir=folder, image_size=32, epochs=4, batch_size=16)
    train(new_model(settings), tiny_data(48), settings, folder / "scratch")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predictor, "load_data", lambda *_, **__: tiny_data(48))
        predictor.read_run(folder)  # what it works out is kept from now on
    return folder, settings
