"""`python -m covid_utils`: see `covid_course/commands.py`."""

import sys


def predict(*arguments) -> int:
    """`covid_course.predict.predict_files`, imported only when it is needed: that takes seconds."""
    from covid_course.predict import predict_files

    return predict_files(*arguments)


def export(*arguments) -> int:
    """`covid_course.export.export_run`, likewise."""
    from covid_course.export import export_run

    return export_run(*arguments)


def demo(*arguments) -> int:
    """`covid_course.demo.serve`, likewise."""
    from covid_course.demo import serve

    return serve(*arguments)


def check() -> int:
    """`covid_course.machine.report`, with the checks that measure; these need PyTorch, which may be missing."""
    from covid_course.machine import report

    def measured():
        from covid_course import speed

        return speed.measured()

    return report(measured)


if __name__ == "__main__":
    try:
        from covid_course.commands import main
    except ImportError as error:  # no command can run; the check says which packages are missing
        print(f"{error}\n", file=sys.stderr)
        raise SystemExit(check() or 1) from None
    raise SystemExit(main(predict=predict, export=export, demo=demo, check=check))
