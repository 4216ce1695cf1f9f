"""`{results}`, `{microscopes}` and `{photographs}`: what the training recipes reach, as tables from tests/proofs.csv.

`{results} mask AP50 on shapes` writes one table only, without a heading. `{microscopes} nuclei_grouped` writes the
accuracies on real microscope images at rising thresholds of IoU, and `{microscopes} nuclei_grouped by kind` those on
each kind of image.

The rows come from claims named "results: METHOD on DATA: ...", "DATA: METHOD, instance accuracy at IoU ..." and
"photos: METHOD on DATA, mean IoU on ..."; one whose sources have changed since says so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxDirective

from segedu.teaching.evidence.proofs import read_claims, read_rows, stale
from segedu_site import methods
from segedu_site.charts import bars_of, chart

ROOT = Path(__file__).resolve().parents[2]
CLAIM = re.compile(r"results: (?P<method>\S+) on (?P<data>\S+): (?P<metric>[^,]+)")
PHOTOGRAPHS = re.compile(r"photos: (?P<method>\S+) on (?P<data>\S+), mean IoU on (?P<splits>[\w, ]+); seed 0")
MICROSCOPES = re.compile(r"(?P<data>\w+): (?P<method>\w+), instance accuracy at IoU (?P<thresholds>[\d., ]+) on")
BY_KIND = "by kind"
SEEDS = 3
DAGGER = " \N{DAGGER}"
NOTE = "\N{DAGGER} Measured before the last change of its code."


@dataclass(frozen=True)
class Result:
    """One row: the scores of three seeds, the least, and what they cost."""

    method: str
    baseline: str
    plain: tuple[str, ...]
    reached: tuple[str, ...]
    least: str
    target: str
    parameters: int
    steps: int
    cpu_seconds: str
    old: bool


def read_results(root: Path = ROOT) -> dict[tuple[str, str], list[Result]]:
    """Results by (data, metric), in the order of the claims.

    Raises:
        ValueError: for a row that is not what `segedu train --seeds 3` prints.
    """
    tables: dict[tuple[str, str], list[Result]] = {}
    changed = set(stale(root))
    for name, row in read_rows(root).items():
        if found := CLAIM.match(name):
            *baseline, least, target, parameters, steps, cpu_seconds = row.figure.split()
            reached, plain = baseline[-SEEDS:], baseline[-2 * SEEDS : -SEEDS]
            if len(plain) < SEEDS or min(reached) != least:
                raise ValueError(f"row {name!r} holds {row.figure!r}, expected scores of {SEEDS} seeds and their least")
            words = " ".join(baseline[: -2 * SEEDS])
            scores = (words, tuple(plain), tuple(reached), least, target, int(parameters), int(steps), cpu_seconds)
            result = Result(found["method"], *scores, old=name in changed)
            tables.setdefault((found["data"], found["metric"]), []).append(result)
    return tables


def read_unmeasured(root: Path = ROOT) -> list[str]:
    """Recipes that are claimed and have no row, such as "fcn8 on street", in the order of the claims."""
    rows = read_rows(root)
    found = (CLAIM.match(claim.name) for claim in read_claims(root) if claim.name not in rows)
    return [f"{match['method']} on {match['data']}" for match in found if match]


def markdown(tables: dict[tuple[str, str], list[Result]]) -> str:
    """A section with a table for each data set, the baseline first."""
    lines = []
    for (data, metric), results in tables.items():
        lines += [f"## {metric[:1].upper()}{metric[1:]} on `{data}`", "", *_table(results), ""]
    return "\n".join(lines)


def with_note(table: str) -> str:
    """A table, and below it what the dagger means if one of its rows has one."""
    return f"{table}\n\n{NOTE}\n" if DAGGER in table else table


def one_table(wanted: str, root: Path = ROOT) -> str:
    """The table of one metric on one data set.

    Args:
        wanted: such as "mask AP50 on shapes".
        root: of the checkout.

    Raises:
        ValueError: if there is no such table.
    """
    tables = {f"{metric} on {data}": results for (data, metric), results in read_results(root).items()}
    if wanted not in tables:
        raise ValueError(f"results of {wanted!r} are not measured, expected one of {', '.join(tables)}")
    return "\n".join(_table(tables[wanted]))


def _table(results: list[Result]) -> list[str]:
    head = ["", *(f"seed {seed}" for seed in range(SEEDS)), "lowest", "required", "parameters", "CPU (s)"]
    first = results[0]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    plain = _rounded(*first.plain, min(first.plain))
    lines.append(f"| *{first.baseline}* | {' | '.join(plain)} | | | |")
    for result in results:
        name = f"**{result.method}**" + (DAGGER if result.old else "")
        scores = _rounded(*result.reached, result.least)
        cells = [name, *scores, result.target, f"{result.parameters:,}", result.cpu_seconds]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _rounded(*scores: str) -> list[str]:
    """Three decimals: more do not fit beside the other columns on a laptop."""
    return [f"{float(score):.3f}" for score in scores]


@dataclass(frozen=True)
class Accuracies:
    """One row of a method on real microscope images.

    `at_iou` and `plain_at_iou` hold the scores of the method and of the baseline at the thresholds. `pairs` holds the
    scores of both at IoU 0.5: pooled over the objects of all images, and of each kind of image.
    """

    method: str
    baseline: str
    thresholds: tuple[str, ...]
    plain_at_iou: tuple[str, ...]
    at_iou: tuple[str, ...]
    pairs: dict[str, tuple[str, str]]
    steps: str
    cpu_seconds: str
    old: bool


def read_accuracies(data: str, root: Path = ROOT) -> list[Accuracies]:
    """The measured methods on a data set, in the order of the claims.

    Raises:
        ValueError: for a row that is not what `segedu train` prints, or where the baselines differ.
    """
    results, changed = [], set(stale(root))
    for name, row in read_rows(root).items():
        found = MICROSCOPES.match(name)
        if found and found["data"] == data:
            thresholds = tuple(found["thresholds"].split(", "))
            *texts, last = row.figure.split("; ")
            *last, steps, cpu_seconds = last.split()
            parts = [text.rsplit(maxsplit=len(thresholds)) for text in texts[:2]]
            of_pairs = [text.split() for text in [*texts[2:], " ".join(last)]]
            if [len(part) for part in parts] != [len(thresholds) + 1] * 2 or any(len(pair) != 3 for pair in of_pairs):
                raise ValueError(f"row {name!r} holds {row.figure!r}, expected a score for each of {thresholds}")
            (baseline, *plain), (method, *scores) = parts
            pairs = {kind: (its_plain, its_own) for kind, its_plain, its_own in of_pairs}
            cost = (steps, cpu_seconds, name in changed)
            results.append(Accuracies(method, baseline, thresholds, tuple(plain), tuple(scores), pairs, *cost))
            if method != found["method"]:
                raise ValueError(f"row {name!r} holds scores of {method!r}, expected {found['method']!r}")
    of_baseline = {(one.baseline, one.plain_at_iou, *(plain for plain, _ in one.pairs.values())) for one in results}
    if len(of_baseline) > 1:
        raise ValueError(f"the baseline on {data} is not one row: {sorted(of_baseline)}")
    return results


def microscopes_table(wanted: str, root: Path = ROOT) -> str:
    """The table of a data set, the baseline first.

    Args:
        wanted: name of the data set; followed by "by kind" for the accuracy on each kind of image.
        root: of the checkout.
    """
    data = wanted.removesuffix(BY_KIND).strip()
    results = read_accuracies(data, root)
    if not results:
        return f"No method has been measured on `{data}` so far."
    first = results[0]
    if wanted.endswith(BY_KIND):
        kinds = [kind for kind in first.pairs if kind != "pooled"]
        head = ["", *(kind.replace("_", " ") for kind in kinds)]
        plain = [first.pairs[kind][0] for kind in kinds]
        rows = [[one.pairs[kind][1] for kind in kinds] for one in results]
    else:
        head = ["", *(f"IoU {threshold}" for threshold in first.thresholds), "pooled", "steps", "CPU (s)"]
        plain = [*first.plain_at_iou, first.pairs["pooled"][0], "", ""]
        rows = [[*one.at_iou, one.pairs["pooled"][1], one.steps, one.cpu_seconds] for one in results]
    names = [f"**{one.method}**" + DAGGER * one.old for one in results]
    lines = [[f"*{first.baseline}*", *plain], *([name, *row] for name, row in zip(names, rows, strict=True))]
    rule = "|---|" + "---:|" * (len(head) - 1)
    return "\n".join(["| " + " | ".join(head) + " |", rule, *("| " + " | ".join(line) + " |" for line in lines)])


def photographs_table(data: str, root: Path = ROOT) -> str:
    """Mean IoU of each method on the splits of a set of real photographs, the baseline first.

    Args:
        data: name of the data set.
        root: of the checkout.

    Raises:
        ValueError: a row is not what `segedu train` prints, or the baselines differ.
    """
    head, plain, lines, changed = [], set(), [], set(stale(root))
    for name, row in read_rows(root).items():
        if (found := PHOTOGRAPHS.match(name)) and found["data"] == data:
            splits = found["splits"].split(", ")
            cells = [cell.strip() for cell in row.figure.split("│")]
            baseline, method = cells[: len(splits) + 1], cells[len(splits) + 1 : -1]
            if method[:1] != [found["method"]] or len(method) != len(splits) + 1:
                raise ValueError(f"row {name!r} holds {row.figure!r}, expected a score for each of {splits}")
            steps, parameters, cpu_seconds = cells[-1].split()
            head = ["", *splits, "parameters", "steps", "CPU (s)"]
            plain.add(" | ".join((f"*{baseline[0]}*", *baseline[1:], "", "", "")))
            label = f"**{method[0]}**" + DAGGER * (name in changed)
            lines.append(" | ".join((label, *method[1:], f"{int(parameters):,}", steps, cpu_seconds)))
    if not lines:
        return f"No recipe on `{data}` has a measured row so far."
    if len(plain) > 1:
        raise ValueError(f"the baseline of {data!r} is not one row: {sorted(plain)}")
    rule = "---|" + "---:|" * (len(head) - 1)
    return "\n".join(["| " + " | ".join(head) + " |", "|" + rule, *(f"| {line} |" for line in [*plain, *lines])])


def _note_sources(directive: SphinxDirective) -> None:
    for file in ("proofs.csv", "claims.toml"):
        directive.env.note_dependency(str(ROOT / "tests" / file))


def link_methods(text: str, env: BuildEnvironment) -> str:
    """Lead from the name of each method, in bold, to its entry, where the site has that page.

    A recipe is named as the file of its method, some with a number after it: `fcn16` is a recipe of `fcn.py`.
    """
    targets = {}
    for task, found in methods.read_methods().items():
        if f"course/methods/{task}" in env.found_docs:
            targets |= {Path(method.path).stem: methods.label(method) for method in found}

    def link(name: re.Match) -> str:
        target = targets.get(name[1]) or targets.get(name[1].rstrip("0123456789"))
        return f"[{name[0]}](#{target})" if target else name[0]

    return re.sub(r"\*\*(\w+)\*\*", link, text)


def with_chart(
    directive: SphinxDirective, table: str, metric: str, columns: list[str], unit: float = 1
) -> list[nodes.Node]:
    """A chart of some columns of a table, and the table."""
    drawn = chart(metric, *bars_of(table, columns), unit) if table.startswith("|") else []
    return [*drawn, *directive.parse_text_to_nodes(link_methods(with_note(table), directive.env))]


class Microscopes(SphinxDirective):
    """Writes a chart and a table of real microscope images where it stands."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        _note_sources(self)
        table = microscopes_table(self.arguments[0])
        if self.arguments[0].endswith(BY_KIND):
            return self.parse_text_to_nodes(link_methods(table, self.env))
        return with_chart(self, table, "Instance accuracy at an IoU of 0.5, pooled over all objects", ["pooled"])


class Photographs(SphinxDirective):
    """Writes a chart and the table of one set of real photographs where it stands."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        _note_sources(self)
        table = photographs_table(self.arguments[0])
        splits = table.splitlines()[0].strip("| ").split(" | ")[:-3]
        split = "test" if "test" in splits else splits[-1]
        return with_chart(self, table, f"Mean IoU on the split {split}", [split])


class Results(SphinxDirective):
    """Writes the tables of all data sets, with charts, or the one table that is asked for, where it stands."""

    optional_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        _note_sources(self)
        if self.arguments:
            return self.parse_text_to_nodes(link_methods(with_note(one_table(self.arguments[0])), self.env))
        tables, missing = read_results(), read_unmeasured()
        text = "".join(self.section(*names, results) for names, results in tables.items())
        if missing:
            text += (
                f"\nNot measured with three seeds so far: {', '.join(missing)}. Some have a row of one seed below.\n"
            )
        return self.parse_text_to_nodes(link_methods(text, self.env), allow_section_headings=True)

    def section(self, data: str, metric: str, results: list[Result]) -> str:
        """A heading, a chart and a table."""
        bars = bars_of("\n".join(_table(results)), [f"seed {seed}" for seed in range(SEEDS)])
        (drawn,) = chart(f"{metric[:1].upper()}{metric[1:]} on {data}", *bars)
        heading, table = markdown({(data, metric): results}).split("\n", 1)
        return f"{heading}\n\n```{{raw}} html\n{drawn.astext()}\n```\n{with_note(table)}\n"


def setup(app: Sphinx) -> None:
    app.add_directive("results", Results)
    app.add_directive("microscopes", Microscopes)
    app.add_directive("photographs", Photographs)
