"""`python -m covid_utils`: see `runs/commands.py`."""

from .runs.commands import main

if __name__ == "__main__":
    raise SystemExit(main())
