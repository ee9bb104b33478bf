"""The physics that a run or a buffer is about, to tell apart what cannot be compared.

A source, below, is anything with `env_name`, `env_kwargs` and `dt`: a model's spec or a dataset.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import physgym

SHAPE = ("dt", "action_mode")
"""Conditions that no choice of a buffer can bridge."""


def conditions(source: Any) -> dict[str, Any]:
    """Arguments of a source's true env as JSON types, defaults filled in.

    Each parameter has an entry of its own, "params.mass"; "randomize" holds ranges by name.
    Raises what ``physgym.get_system`` and its checks raise.
    """
    system, given = physgym.system_of(source), source.env_kwargs
    if "parameters" not in system.knows:
        return {"dt": float(source.dt), "action_mode": system.action_mode, **dict(given)}
    randomize = given.get("randomize") or {}
    ranges = system.ranges if randomize is True else randomize
    params = system.check_params(given.get("params"))._asdict()
    band = given.get("energy")
    return {
        "dt": float(source.dt),
        "action_mode": given.get("action_mode") or "discrete",
        "randomize": {name: [float(end) for end in pair] for name, pair in ranges.items()},
        "integrator": system.check_integrator(given.get("integrator")),
        "start": given.get("start") or ("energy" if band else system.starts[0]),
        "energy": band and [float(end) for end in band],
        **{f"params.{name}": float(value) for name, value in params.items()},
    }


def differences(own: Any, other: Any) -> dict[str, tuple[Any, Any]]:
    """Conditions that two sources do not share, with both values."""
    first, second = conditions(own), conditions(other)
    drawn = {f"params.{name}" for name in first.get("randomize", ())}
    return {
        name: (value, second.get(name))
        for name, value in first.items()
        if value != second.get(name) and name not in drawn
    }


def check_shared(specs: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` where the specs, by row name, are not all of the same physics."""
    (first, own), *others = specs.items()
    for name, spec in others:
        if found := differences(own, spec):
            values = "; ".join(
                f"env.{argument} is {one} for {first}, and {two} for {name}"
                for argument, (one, two) in found.items()
            )
            choice = "" if found.keys() & set(SHAPE) else ", or say on which buffer with --dataset"
            raise ValueError(
                f"the runs learned other physics: {values}; compare one at a time{choice}"
            )


def mismatch(specs: Mapping[str, Any], dataset: Any) -> str:
    """One line that names the models that learned other physics than the dataset's, or ""."""
    parts = [
        f"{name} with env.{argument} {own} (the dataset: {given})"
        for name, spec in specs.items()
        for argument, (own, given) in differences(spec, dataset).items()
    ]
    return f"compared on physics that they did not learn: {', '.join(parts)}" if parts else ""


def describe(source: Any) -> str:
    """A source in words: actions, dt, and what else is not the system's default."""
    system, values = physgym.system_of(source), conditions(source)
    if "parameters" not in system.knows:
        others = [f"{name} {value}" for name, value in source.env_kwargs.items()]
        return ", ".join([f"{values['action_mode']} actions", f"dt {values['dt']:g} s", *others])
    usual: dict[str, Any] = {
        f"params.{name}": float(value) for name, value in system.Params()._asdict().items()
    }
    usual |= {"integrator": system.default_integrator, "start": system.starts[0], "energy": None}
    drawn = list(values["randomize"])
    words = [f"{values['action_mode']} actions", f"dt {values['dt']:g} s"]
    other = [
        f"{name.removeprefix('params.')} {values[name]}"
        for name, value in usual.items()
        if values[name] != value and name.removeprefix("params.") not in drawn
    ]
    words += other or ([] if drawn else ["default parameters"])
    if drawn:
        words.append(f"{', '.join(drawn)} drawn in every episode")
    return ", ".join(words)
