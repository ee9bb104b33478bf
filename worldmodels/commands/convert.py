"""Episodes from elsewhere into a buffer, or a buffer into what others read.

    physgym convert pendulum/random-v0 --name mine           # a Minari set
    physgym convert episodes.npz --env CartPole-v1 --name mine
    physgym convert CartPole-v1/mine --to cartpole/mine-v0   # to a Minari set
    physgym convert CartPole-v1/mine --to episodes.npz

Minari needs the extra `data`: pip install 'physgym[data]'. A NumPy archive holds observations, actions, rewards,
terminated and truncated of all episodes behind one another, and lengths (N,) of the episodes; observations have
one row more an episode.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from worldmodels.commands import terminal as cli


@dataclass(frozen=True)
class Arguments:
    """What to convert, and into what."""

    source: Annotated[str, tyro.conf.Positional]
    """A Minari set's id, a .npz, or with --to a buffer."""
    to: str | None = None
    """Minari id or .npz to write a buffer to; None: the source becomes a buffer."""
    env: str | None = None
    """Id of the env that the episodes are of; None: what a Minari set says."""
    name: str | None = None
    """Name of the buffer, which lies in datasets/<env>/<name>/."""
    env_kwargs: dict[str, bool | int | float | str] | None = None
    """Arguments of gymnasium.make of that env."""
    dt: float | None = None
    """Seconds a step; None: the env's own."""
    download: bool = False
    """Fetch a Minari set that is not there."""
    root: Path = Path("datasets")
    """Folder of all datasets."""


def main() -> None:
    """Convert what the command line names, and say where it lies."""
    args = cli.parse(Arguments, description=__doc__)
    if args.to is not None:
        print(_written(args))
        return
    if args.name is None:
        raise cli.UsageError("a buffer needs a name: give --name, or --to to write one")
    from worldmodels.data.given import from_archive
    from worldmodels.data.minari_sets import from_minari

    arguments: dict[str, Any] = {"name": args.name, "root": args.root, "dt": args.dt}
    arguments["make_kwargs"] = args.env_kwargs
    if args.source.endswith(".npz"):
        if args.env is None:
            raise cli.UsageError(f"{args.source} does not say of which env it is: give --env")
        print(from_archive(args.source, env=args.env, **arguments))
        return
    print(from_minari(args.source, env=args.env, download=args.download, **arguments))


def _written(args: Arguments) -> str:
    """Where a buffer was written to."""
    from worldmodels.data import load_dataset, resolve_dataset
    from worldmodels.data.given import to_archive
    from worldmodels.data.minari_sets import to_minari

    for name in ("name", "env_kwargs", "dt"):
        if getattr(args, name) is not None:
            raise cli.UsageError(
                f"--{name.replace('_', '-')} is of a buffer to be made: leave it out with --to"
            )
    dataset = load_dataset(resolve_dataset(args.source, args.env, args.root))
    if str(args.to).endswith(".npz"):
        cli.check_writable(Path(str(args.to)))
        return str(to_archive(dataset, str(args.to)))
    return to_minari(dataset, str(args.to))
