"""The model card of a tuned model: the README.md of its directory, as the Hugging Face hub reads it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ravl.config import digest
from ravl.mitigation.rematch import identity, tally, told

MAX_ROWS = 40
"""Groups in the table; there may be a thousand classes."""

_LOADS = {
    "transformers": "`AutoModel.from_pretrained`, `AutoProcessor.from_pretrained`",
    "open_clip": "`open_clip.create_model_and_transforms`, `open_clip.get_tokenizer`, with `local-dir:` and its folder",
}
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_MARKS = re.compile(r"([\\`*_{}\[\]<>#|~&$])")

_LIMITS = """\
- The groups are *inferred*: the audited model's clusters say which image shows a feature. No person labelled them.
- Only the features above were treated. Others may be there, and fixing one shortcut can strengthen another.
- The numbers hold for the images of the comparison. With other images, prompts or classes they will differ.
- Only the vision tower and its projection were changed; the text tower and the temperature are those of the base model.
- The license of the base model and of the images holds; ravl does not know it."""


def model_card(model: str, classes: tuple[str, ...], templates: tuple[str, ...], result: dict[str, Any]) -> str:
    """Front matter and text. model: reference of the base model. result: the document of `ravl mitigate --json`.

    A hub id is linked as the base model. Of paths only the last part is told: the rest means nothing on other machines,
    and may say more than people want to publish.
    """
    kind, _, place = model.rpartition(":")
    library = "open_clip" if kind in ("hf-hub", "local-dir", "open_clip") else "transformers"
    own = bool(_HUB_ID.fullmatch(place)) and kind in ("", "hf-hub") and not Path(model).exists()
    front = [f"library_name: {library}", "license: unknown", "pipeline_tag: zero-shot-image-classification"]
    front += [f"base_model: {json.dumps(place)}"] if own else []
    front += ["tags:", "- clip", "- ravl", "- spurious-correlations", "- robustness"]
    prints = {**result["fingerprints"], "prompts": digest({"classes": classes, "templates": templates})}
    base, images = escaped(_last(model)), escaped(_last(result["compared_on"]))
    about = (
        f"Fine-tuned from {base} with `ravl mitigate` so that it no longer relies on the features below. "
        f"Method {escaped(result['method'])}, audit {escaped(result['run'])}, fine-tuning {escaped(result['name'])}. "
        f"It loads with {library} alone: {_LOADS[library]}."
    )
    parts = [
        "\n".join(["---", *front, "---"]),
        f"# {base}, repaired by RAVL ({escaped(result['method'])})",
        about,
        "## Features treated",
        "\n".join(map(_feature, result["features"])) or "None.",
        "## Before and after",
        f"Compared on {images}. What fell most comes first; intervals have a level of 95 %.",
        _table(result["changes"]),
        "## Audit of this model",
        _reaudit(result.get("reaudit")),
        "## Prompts",
        f"Templates {_listed(templates)}; classes {_listed(classes)}.",
        "## Fingerprints",
        "\n".join(f"- {name.replace('_', ' ')}: `{value}`" for name, value in prints.items()),
        "## Limits",
        _LIMITS,
    ]
    return "\n\n".join(parts) + "\n"


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, on one line: names come from people, and paths from anywhere."""
    return _MARKS.sub(r"\\\1", " ".join(text.split()))


def _last(reference: str) -> str:
    path = reference.removeprefix("local-dir:")
    return Path(path).name if path.startswith("/") else reference


def _listed(texts: tuple[str, ...]) -> str:
    return ", ".join(f"“{escaped(text)}”" for text in texts)


def _feature(about: dict[str, Any]) -> str:
    name = escaped(about["name"]) or f"feature {about['feature']}"
    pull = f", which pulls to {escaped(about['pull_class'])}" if about["pull_class"] else ""
    who = f"{about['decision']} by {escaped(about['reviewer'])}" if about["reviewer"] else "not decided by a person"
    fixed, broken = (f"{about[part]['count']} of {about[part]['n']}" for part in ("fixed", "broken"))
    return f"- **{name}**{pull}: {who}. Where it shows, {fixed} errors went and {broken} right answers were lost."


def _reaudit(part: dict[str, Any] | None) -> str:
    """What the audit of the tuned model says, what grew first."""
    if part is None:
        return "Not done. Fixing one shortcut can strengthen another: audit this model (`ravl discover`)."
    rows, (old, new) = part["features"], (part["accuracy"][when] for when in ("before", "after"))
    lines = [
        f"Audited again with the settings of the first audit, on its images (audit {escaped(part['run'])}). "
        f"Right there: {old['count']} of {old['n']} before, {new['count']} of {new['n']} now. Flagged features: "
        f"{part['flagged']['before']} before, {part['flagged']['after']} now."
    ]
    if not any(row["worse"] for row in rows):
        lines.append(
            "- No feature decides more errors than before beyond chance, and none is newly flagged. That does not "
            "prove that no shortcut grew: properties of the whole image, anything smaller than a region, and what "
            "causes no error in these images are not seen."
        )
    lines += [_told(why, row) for why, row in told(rows)[:MAX_ROWS]]
    return "\n".join([lines[0], "", *lines[1:], f"- Features of both audits: {tally(rows)}."])


def _told(why: str, row: dict[str, Any]) -> str:
    (name, pull), errors = identity(row), row["errors"]
    pulls = f", which pulls to {escaped(pull)}" if pull else ""
    counts = f"{errors['before']['count']} before, {errors['after']['count']} now, of {errors['n']} images"
    low, high = (_percent(value) for value in errors["interval"])
    flag = "; flagged now" if row["flagged"]["after"] and why != "still flagged" else ""
    return (
        f"- **{why.capitalize()}: {escaped(name)}**{pulls}. Errors it decides: {counts} (change {low} to {high}){flag}."
    )


def _table(changes: list[dict[str, Any]]) -> str:
    rows = [row for row in changes if row["n"]]
    whole = [row for row in rows if row["kind"] == "overall"]
    rest = [row for row in rows if row["kind"] != "overall"]
    lines = ["| images | n | before | after | change |", "|---|---:|---:|---:|---:|"]
    for row in (whole + rest)[:MAX_ROWS]:
        old, new = (_percent(row[when]["rate"]) for when in ("before", "after"))
        change, low, high = (_percent(value) for value in (row["change"], *row["interval"]))
        lines.append(f"| {escaped(row['name'])} | {row['n']} | {old} | {new} | {change} ({low} to {high}) |")
    left = len(rows) - MAX_ROWS
    return "\n".join(lines) + (f"\n\n{left} more groups are in `result.json` of the fine-tuning." if left > 0 else "")


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
