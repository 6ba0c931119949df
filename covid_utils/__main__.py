"""`python -m covid_utils`: see `covid_course/commands.py`."""

import sys

if __name__ == "__main__":
    try:
        from covid_course.commands import main
    except ImportError as error:  # no command can run; the machine's check says which packages are missing
        from covid_course.machine import report

        print(f"{error}\n", file=sys.stderr)
        raise SystemExit(report() or 1) from None
    raise SystemExit(main())
