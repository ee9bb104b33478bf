"""Compare world models with the truth and with baselines: `physgym evaluate` in a clone."""

import cli

if __name__ == "__main__":
    cli.start("evaluate")
