"""Watch a system, or a world model beside it: `physgym visualize` in a clone."""

import cli

if __name__ == "__main__":
    cli.start("visualize")
