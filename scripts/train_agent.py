"""Train a stock agent inside a learned world model: `physgym agent` in a clone."""

import cli

if __name__ == "__main__":
    cli.start("agent")
