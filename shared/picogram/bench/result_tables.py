# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""What an ablation leaves: ``ablation.json``, and Markdown made of it.

python -m picogram.bench.result_tables ablation.json                       # to stdout
python -m picogram.bench.result_tables ablation.json docs/ablations.md     # between the page's two marks
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from picogram.bench.verdicts import AblationMean, AblationRow, Interval, Kid, Value, Verdict, means, verdicts
from picogram.bench.word_variants import MEANING
from picogram.errors import UsageError

SCHEMA = 1
BEGIN, END = "<!-- results -->", "<!-- end of results -->"
_COLUMNS = (
    "words",
    "bytes",
    "of them words",
    "unused",
    "LPIPS↓",
    "DISTS↓",
    "PSNR↑",
    "KID↓",
    "KID VGG↓",
    "LPIPS less empty",
    "DISTS less empty",
)


@dataclass
class Ablation:
    """A whole run. ``settings``: what was asked; ``versions``: of programs; ``models``: SHA-256 of shipped weights.

    ``pictures`` by name: size, SHA-256, caption, objects, whose caption it got. ``left_out``: sentences.
    """

    settings: dict[str, Any]
    versions: dict[str, str]
    models: dict[str, str]
    pictures: dict[str, dict[str, Any]] = field(default_factory=dict)
    rows: list[AblationRow] = field(default_factory=list)
    kids: list[Kid] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    seconds: float = 0.0
    schema: int = SCHEMA


def save(ablation: Ablation, path: Path) -> None:
    """Write everything, and for readers of the file the summary and the verdicts; nan becomes null."""
    document = asdict(ablation) | {
        "summary": [asdict(mean) for mean in means(ablation.rows, ablation.kids)],
        "verdicts": [asdict(verdict) for verdict in verdicts(ablation.rows)],
    }
    write(path, document)


def write(path: Path, document: Any) -> None:
    """As JSON on one line: whole runs have thousands of rows, and clones carry their results."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(plain(document), separators=(",", ":"), ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def load(path: Path) -> Ablation:
    """Read what ``save`` wrote; UsageError if it is something else."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["schema"] != SCHEMA:
            raise UsageError(f"{path} has schema {document['schema']}, this is a reader of {SCHEMA}")
        for derived in ("summary", "verdicts"):
            del document[derived]
        rows = [AblationRow(**entry) for entry in document.pop("rows")]
        kids = [Kid(**_numbers(entry)) for entry in document.pop("kids")]
        return Ablation(rows=rows, kids=kids, **document)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is not the result of an ablation: {error}") from error


def plain(value: Any) -> Any:
    """Lists and dictionaries for JSON, with nan as None."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _numbers(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: math.nan if value is None else value for key, value in entry.items()}


def markdown(ablation: Ablation) -> str:
    """A table for each profile and rate with its verdicts below, then what made them."""
    lines: list[str] = []
    answers = verdicts(ablation.rows)
    groups: dict[tuple[str, float], list[AblationMean]] = {}
    for mean in means(ablation.rows, ablation.kids):
        groups.setdefault((mean.profile, mean.bpp), []).append(mean)
    for (profile, bpp), some in groups.items():
        lines += [f"### {profile} at {bpp:g} bits per pixel", ""]
        lines += ["| " + " | ".join(_COLUMNS) + " |", "|---|" + "---:|" * (len(_COLUMNS) - 1)]
        lines += ["| " + " | ".join(_cells(mean)) + " |" for mean in some]
        lines += [""]
        lines += [f"- {sentence(v)}" for v in answers if (v.profile, v.bpp) == (profile, bpp)]
        lines += [""]
    lines += [*_made_of(ablation), ""]
    return "\n".join(lines)


def _cells(mean: AblationMean) -> Iterator[str]:
    yield mean.variant
    yield f"{mean.bytes:.0f}"
    yield f"{mean.words_bytes:.1f}"
    yield f"{100 * mean.shortfall:.2f}%"
    for metric, digits in (("lpips", 4), ("dists", 4), ("psnr", 2), ("kid", 4), ("kid_vgg", 4)):
        yield _value(mean.values[metric], digits)
    for metric in ("lpips", "dists"):
        yield "" if mean.variant == "empty" else _interval(mean.to_empty[metric])


def sentence(verdict: Verdict) -> str:
    """One line: what pays, by how much, on how many pictures."""
    lpips, dists = verdict.differences["lpips"], verdict.differences["dists"]
    figures = ""
    if lpips.pictures:
        count = f"{lpips.pictures} {'picture' if lpips.pictures == 1 else 'pictures'}"
        figures = f" (LPIPS {_interval(lpips)}, DISTS {_interval(dists)}, {count})"
    question = verdict.question
    return f"{question.subject}, {question.note}: {verdict.answer}{figures}"


def _value(value: Value, digits: int) -> str:
    if math.isnan(value.mean):
        return ""
    return f"{value.mean:.{digits}f}" + (f" ± {value.spread:.{digits}f}" if value.spread else "")


def _interval(interval: Interval) -> str:
    if math.isnan(interval.mean):
        return ""
    if math.isnan(interval.low):
        return f"{interval.mean:+.4f}"
    return f"{interval.mean:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"


def _made_of(ablation: Ablation) -> Iterator[str]:
    settings = ablation.settings
    names = list(dict.fromkeys(row.variant for row in ablation.rows))
    yield from (f"- {name}: {MEANING[name]}" for name in names)
    yield ""
    yield (
        f"{len(ablation.pictures)} pictures, seeds of drawings: {settings['seeds']}, captions by {settings['captions']}. "
        "± is the deviation over seeds of the mean over pictures; brackets hold 95% bootstrap intervals over pictures of "
        "paired differences, seeds averaged. Every byte of a file is counted; unused is the mean share of the budget "
        "that files leave. KIDs compare the variants here and nothing else."
    )
    for sentence_ in ablation.left_out:
        yield f"Left out: {sentence_}."
    versions = ", ".join(f"{name} {version}" for name, version in ablation.versions.items())
    models = ", ".join(f"{name} {digest[:8]}" for name, digest in ablation.models.items())
    yield f"Made in {ablation.seconds / 60:.1f} minutes of processor time with {versions}; models {models}."


def fill(page: str, table: str) -> str:
    """A page with the table between its two marks; UsageError if it has none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UsageError(f"the page lacks {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{table.strip()}\n\n{END}{after}"


def rendered(results: Iterable[Path]) -> str:
    """The Markdown of one result or of several, each under its folder's name."""
    paths = list(results)
    if len(paths) == 1:
        return markdown(load(paths[0]))
    return "\n".join(f"## {path.parent.name}\n\n{markdown(load(path))}" for path in paths)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints Markdown, or writes it into a page."""
    parser = argparse.ArgumentParser(description="Markdown of ablation.json files.")
    parser.add_argument("results", type=Path, nargs="+", help="ablation.json, then perhaps a page (.md)")
    *results, last = parser.parse_args(arguments).results
    if last.suffix != ".md":
        print(rendered([*results, last]), end="")
        return
    last.write_text(fill(last.read_text(encoding="utf-8"), rendered(results)), encoding="utf-8")


if __name__ == "__main__":
    main()
