"""Laws about the documents: tables are those of the results, and examples, links and options are true."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from dataclasses import fields, is_dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import worldmodels
from benchmarks import tables
from worldmodels.configs.training import MODELS, PREDICTORS, default_config

ROOT = Path(__file__).parent.parent
PAGES = {str(path.relative_to(ROOT)): path for path in tables.DOCUMENTS}
DOCUMENTS = {**PAGES, **{p.name: p for p in ROOT.glob("*.md")}}
DOCUMENTS["benchmarks/README.md"] = ROOT / "benchmarks" / "README.md"
NAMING = ("--env", "--model", "--predictor", "--size")
"""Options that decide which others `--help` shows."""


def text_of(name: str) -> str:
    return DOCUMENTS[name].read_text(encoding="utf-8")


# -- tables ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAGES)
def test_every_table_of_figures_is_that_of_the_results(name):
    text = text_of(name)
    assert tables.drawn(text) == text, "python benchmarks/tables.py writes it anew"
    loose = list(tables.unmarked(text))
    assert not loose, f"{name} has figures that no result stands behind: {loose}"
    assert text.count("<!-- table:") == len(tables.MARKED.findall(text)), "a mark is misspelt"
    assert not re.search(r"<t[dr]\b", text), "HTML tables are not seen by this test"


def test_every_result_and_every_table_is_shown():
    marks = [m for name in PAGES for m in tables.MARKED.finditer(text_of(name))]
    assert {mark["name"] for mark in marks} == set(tables.TABLES)
    assert {mark["file"] for mark in marks} == {p.name for p in tables.RESULTS.glob("*.json")}


MARKED = "<!-- table: {}, from benchmarks/results/{} -->\n{}<!-- end of table -->\n"


@pytest.mark.parametrize("name", tables.TABLES)
def test_a_figure_that_was_changed_in_the_results_is_seen(name, tmp_path, monkeypatch):
    """Whichever number it is: all of a file are doubled, and no row of figures stays as it was."""

    def doubled(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: doubled(item) for key, item in value.items()}
        if isinstance(value, list):
            return [doubled(item) for item in value]
        return value * 2 if type(value) in (int, float) else value

    file, _ = tables.TABLES[name]
    before = tables.drawn(MARKED.format(name, file, ""))
    assert tables.drawn(before) == before
    result = json.loads((tables.RESULTS / file).read_text())
    (tmp_path / file).write_text(json.dumps(doubled(result)))
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    after = tables.drawn(before)
    head, rows = before.splitlines()[1:3], before.splitlines()[3:-1]
    assert after.splitlines()[1:3] == head
    without = (
        "| not run |",
        "| published |",
        "| `jump` over ",
        "` over it |",
    )  # no figures of ours, or ratios of them
    same = [r for r in rows if r in after.splitlines() and not any(w in r for w in without)]
    assert rows and not same, "a figure of these rows is not taken from the results"


@pytest.mark.parametrize(
    ("mark", "said"),
    [
        (("learnt", "learning.json", ""), "choose one of learning"),
        (("tasks", "x.json", ""), "of x"),
    ],
)
def test_a_mark_of_nothing_is_refused(mark, said):
    with pytest.raises(ValueError, match=said):
        tables.drawn(MARKED.format(*mark))


@pytest.mark.parametrize(
    ("table", "loose"),
    [
        ("| a | b |\n|---|---|\n| x | 3.1 |", 1),
        ("a | b\n--- | ---\nx | 1/17", 1),
        ("prose\n| a | 20 steps |\n|:--|--:|\n| `x` | lost |", 1),
        ("| a | b |\n|---|---|\n| `--size 3` | Stable-Baselines3 |", 0),
        ("panels are true | learned | difference: 3", 0),
        (MARKED.format("tasks", "baselines.json", "| a | b |\n|---|---|\n| x | 3 |\n"), 0),
    ],
)
def test_what_counts_as_a_table_of_figures(table, loose):
    assert len(list(tables.unmarked(f"text\n\n{table}\n\ntext 4\n"))) == loose


# -- links and names ------------------------------------------------------------------------------


def anchors(path: Path) -> set[str]:
    """What a link may name behind `#`, as GitHub makes it of headings."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_and_paths_lead_somewhere(name):
    text, folder = text_of(name), DOCUMENTS[name].parent
    for link in re.findall(r"\]\(((?!\w+:)[^)]+)\)", text):
        path, _, anchor = link.partition("#")
        target = folder / path if path else DOCUMENTS[name]
        assert target.exists(), f"{name} links to {link}"
        assert not anchor or anchor in anchors(target), f"{name} links to {link}"
    roots = "physgym|worldmodels|scripts|docs|benchmarks"
    for path in re.findall(rf"`((?:{roots})/[\w/.]+)`", text):
        assert (ROOT / path).exists(), f"{name} names {path}"
    for path in re.findall(r"python ((?:scripts|benchmarks|tests)/\w+\.py)", text):
        assert (ROOT / path).exists(), f"{name} runs {path}"


def test_the_readme_is_one_screen_that_leads_to_every_page():
    text = text_of("README.md")
    lines = text.splitlines()
    assert len(lines) < 80
    assert lines[2].startswith("Not [principia-ai/PhysGym]")
    assert all(f"({name})" in text for name in DOCUMENTS if name.startswith("docs/"))


def test_the_citation_is_that_of_this_version():
    text = (ROOT / "CITATION.cff").read_text()
    (version,) = re.findall(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.M)
    assert f"\nversion: {version}\n" in text and "\nlicense: MIT\n" in text


# -- examples -------------------------------------------------------------------------------------


def examples(name: str) -> list[str]:
    """The Python blocks of a document, without those that a comment says are not run."""
    blocks = re.findall(r"([^\n]*\n)```python\n(.*?)```", text_of(name), flags=re.DOTALL)
    return [block for before, block in blocks if not before.endswith("-->\n")]


def tiny(*names: str) -> Any:
    """A training of a second, whatever a document asks for."""
    config = default_config(*names, **({"size": "tiny"} if names[-1] == "visual" else {}))
    optim = replace(config.optim, steps_per_epoch=2, batch_size=4)
    config = replace(config, epochs=1, optim=optim, validation_steps=4)
    return replace(config, data=replace(config.data, episodes=12))


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with what the documents' commands leave behind: two runs and a buffer."""
    folder = tmp_path_factory.mktemp("documents")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        worldmodels.train(replace(tiny("pendulum", "port_hamiltonian"), out="outputs/pendulum"))
        worldmodels.train(replace(tiny("pendulum", "visual"), out="outputs/predictor"))
        buffer = worldmodels.CollectConfig(env="pendulum", name="swings", episodes=12)
        worldmodels.collect(buffer, progress=False)
    return folder


RUN_ELSEWHERE = ("CONTRIBUTING.md",)
"""Documents whose examples are files of a user's own: they have a test of their own."""


@pytest.mark.parametrize(
    "name", [name for name in DOCUMENTS if examples(name) and name not in RUN_ELSEWHERE]
)
def test_the_examples_run(name, workplace, monkeypatch):
    """One after the other, as they stand but for the length of the training."""
    if "stable_baselines3" in text_of(name):
        pytest.importorskip("stable_baselines3")
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(worldmodels, "default_config", tiny, raising=False)
    names: dict[str, Any] = {}
    for block in examples(name):
        exec(block.replace("epochs=20", "epochs=1"), names)
    if "observation" in names:
        assert names["env"].observation_space.contains(names["observation"])
    if "torque" in names:
        assert float(names["torque"].grad) > 0.0
    for env in ("env", "envs", "truth"):
        if env in names:
            names[env].close()


# -- commands -------------------------------------------------------------------------------------


def commands(name: str) -> list[list[str]]:
    """The words of every `physgym ...` line in the bash blocks of a document."""
    blocks = re.findall(r"```bash\n(.*?)```", text_of(name), flags=re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [shlex.split(li, comments=True)[1:] for li in lines if li.startswith("physgym ")]


def naming(words: list[str]) -> tuple[str, ...]:
    """The command, and the options that decide what its help shows."""
    pairs = [pair for pair in pairwise(words[1:]) if pair[0] in NAMING]
    return words[0], *(word for pair in pairs for word in pair)


@cache
def options_of(*words: str) -> set[str]:
    """The options that `physgym ... --help` names."""
    argv = [sys.executable, "-m", "physgym", *words, "--help"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"physgym {' '.join(words)}: {done.stdout}{done.stderr}"
    return set(re.findall(r"--[a-z][\w.-]*", done.stdout))


@pytest.mark.skipif(not (ROOT / "physgym" / "__main__.py").exists(), reason="no command `physgym`")
@pytest.mark.parametrize("name", [name for name in DOCUMENTS if commands(name)])
def test_the_commands_have_the_options_they_are_shown_with(name):
    for words in commands(name):
        given = {word.partition("=")[0] for word in words if word.startswith("--")}
        unknown = given - options_of(*naming(words))
        assert not unknown, f"{name}: physgym {words[0]} has no {unknown}"


def dotted(config: Any, prefix: str = "") -> set[str]:
    """The options of a config and its parts, as the command line names them."""
    found = set()
    for field in fields(config):
        option, value = field.name.replace("_", "-"), getattr(config, field.name)
        found |= {f"{prefix}{option}", f"{prefix}no-{option}"}
        if is_dataclass(value):
            found |= dotted(value, f"{prefix}{option}.")
    return found


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_options_that_prose_names_exist(name):
    known = dotted(default_config())
    for model in MODELS:
        known |= dotted(default_config("pendulum", model))
    for predictor in PREDICTORS:
        known |= dotted(default_config("pendulum", "visual", predictor))
    named = set(re.findall(r"--((?:model|optim|data|env|log)\.[\w.-]*\w)", text_of(name)))
    assert named <= known, f"{name} names options that are not there: {named - known}"
