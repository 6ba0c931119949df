"""`python -m covid_utils`: see `runs/commands.py`."""

import sys


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


def check() -> int:
    """`labs.machine.report`, with the checks that measure; these need PyTorch, which may be missing."""
    from .labs.machine import report

    def measured():
        from .labs import speed

        return speed.measured()

    return report(measured)


if __name__ == "__main__":
    try:
        from .runs.commands import main
    except ImportError as error:  # no command can run; the check says which packages are missing
        print(f"{error}\n", file=sys.stderr)
        raise SystemExit(check() or 1) from None
    raise SystemExit(main(predict=predict, export=export, demo=demo, check=check))
