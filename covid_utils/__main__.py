"""`python -m covid_utils`: see `runs/commands.py`."""

from .runs.commands import main


def predict(*arguments) -> int:
    """`labs.answer_files.predict_files`, imported only when it is needed: that takes seconds."""
    from .labs.answer_files import predict_files

    return predict_files(*arguments)


def export(*arguments) -> int:
    """`labs.export.export_run`, likewise."""
    from .labs.export import export_run

    return export_run(*arguments)


def demo(*arguments) -> int:
    """`labs.demo.serve`, likewise."""
    from .labs.demo import serve

    return serve(*arguments)


if __name__ == "__main__":
    raise SystemExit(main(predict=predict, export=export, demo=demo))
