"""Train a world model: `physgym train` in a clone."""

import cli

if __name__ == "__main__":
    cli.start("train")
