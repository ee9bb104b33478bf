"""Collect a buffer of episodes: `physgym collect` in a clone."""

import cli

if __name__ == "__main__":
    cli.start("collect")
