"""The whole tool on a pendulum in a few minutes: `physgym demo` in a clone."""

import cli

if __name__ == "__main__":
    cli.start("demo")
