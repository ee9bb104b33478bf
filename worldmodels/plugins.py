"""Plugins, for commands and workers: see `physgym.plugins`, which this offers under the name users know."""

from __future__ import annotations

from physgym.plugins import PluginError, load_inherited, load_plugin, loaded

__all__ = ["PluginError", "load_inherited", "load_plugin", "loaded", "recorded"]


def recorded(record: object) -> str:
    """What the `plugins` of a run's record say, as the end of a message; "" where it names none."""
    names = record.get("plugins") if isinstance(record, dict) else None
    if not isinstance(names, (list, tuple)) or not names:
        return ""
    told = " and ".join(str(name)[:500] for name in names[:5])
    return f"; the run was made with the plugin {told}: load it first (--plugin, or worldmodels.load_plugin)"
