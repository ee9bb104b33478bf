"""`python -m physgym`: the command line, which lies in `worldmodels.commands`."""

from worldmodels.commands import main

if __name__ == "__main__":
    main()
