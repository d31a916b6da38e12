"""What the measurement of the screen writes: quartiles, ratios, a table, a file, and the README's sentence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.browser import measured
from tests.browser.measured import AGAIN, DECISION, EMPTY, FIRST, LASSO, MEMORY, PAINT, Row, row

ROOT = Path(__file__).parents[1]
ABOUT = {"commit": "c0ffee", "machine": "Abacus, 2 cores, 24 GiB, Linux", "lassoed": 50_000, "regions": 1_000_000}


def rows() -> list[Row]:
    return [
        row(PAINT, EMPTY, [1.0, 1.2, 1.1]),
        row(PAINT, "the demo", [1.7, 1.65, 1.8]),
        row(FIRST, "Overview", [0.5]),
        row(FIRST, "Map", [0.625]),
        row(AGAIN, "Overview", [0.25]),
        row(DECISION, "the demo", [0.2, 0.3]),
        row(LASSO, "50,000 regions", [0.5, 0.4, 0.9]),
        row(MEMORY, EMPTY, [70.0]),
        row(MEMORY, "1,000,000 regions, Map", [490.4]),
    ]


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_quartiles_are_those_of_numpy(n: int) -> None:
    values = np.random.default_rng(n).random(n)
    found = row(PAINT, "the demo", values.tolist())
    assert (found.lower, found.median, found.upper) == pytest.approx(np.quantile(values, [0.25, 0.5, 0.75]), abs=5e-4)
    assert (found.n, found.unit) == (n, "s")


def test_one_value_is_its_own_quartiles() -> None:
    found = row(MEMORY, EMPTY, [70.4])
    assert (found.lower, found.median, found.upper, found.values, found.unit) == (70, 70, 70, (70,), "MB")


def test_seconds_are_compared_with_the_paint_of_the_empty_page_and_memory_with_its_memory() -> None:
    found = rows()
    assert [measured.ratio(found, own) for own in (found[1], found[-1])] == pytest.approx([1.7 / 1.1, 490 / 70])
    assert measured.ratio(found[1:7], found[1]) is None


def test_the_table_has_a_line_a_row_with_its_goal() -> None:
    head, *lines = measured.table(rows()).splitlines()
    assert len(lines) == len(rows())
    assert head.split()[:4] == ["what", "of", "n", "lower"]
    assert lines[1].split() == ["first", "paint", "the", "demo", "3", "1.68", "1.70", "1.75", "s", "1.55", "<=", "2"]
    assert lines[0].split()[-2:] == ["s", "1.00"]  # the yardstick has no goal
    assert "490" in lines[-1].split()
    assert len({line.index(" s ") for line in lines if " s " in line}) == 1  # columns stand below each other
    assert measured.table(rows()[1:2]).splitlines()[1].split()[-3:] == ["s", "<=", "2"]  # no yardstick, no ratio


def test_a_file_holds_the_rows_and_tells_where_they_come_from() -> None:
    document = json.loads(json.dumps(measured.document(rows(), ABOUT)))
    assert measured.rows_of(document) == rows()
    assert {name: document[name] for name in ABOUT} == ABOUT
    assert document["goals"] == dict(measured.GOALS)
    assert [saved["times_empty_page"] for saved in document["rows"]][:2] == [1.0, 1.55]


def test_the_sentence_says_medians() -> None:
    said = measured.sentence(measured.document(rows(), ABOUT))
    for piece in (
        "Abacus, 2 cores",
        "1.7 s after the server answers (an empty page of Streamlit: 1.1 s)",
        "0.50 to 0.62 s at the first visit and 0.25 s later",
        "the next feature in 0.25 s",
        "a lasso on 50,000 regions its crops in 0.50 s",
        "up to 490 MB with 1,000,000 regions open",
        "(assets/bench-screen.json)",
    ):
        assert piece in said
    with pytest.raises(ValueError, match="got none of first paint, memory"):
        measured.sentence(measured.document([own for own in rows() if own.what not in (PAINT, MEMORY)], ABOUT))


def test_the_readme_quotes_the_committed_file() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text == measured.with_sentence(text, ROOT), "run: make bench-screen"
    assert f"<!-- {measured.MARKER} -->" in text
    quoted = f"<!-- /{measured.MARKER} -->" in text
    assert quoted == (ROOT / measured.FILE).exists(), "the README quotes the file if and only if it is there"


def test_a_sentence_is_put_between_the_markers(tmp_path: Path) -> None:
    assert measured.with_sentence("# X\n", tmp_path) == "# X\n"
    (tmp_path / "assets").mkdir()
    document = measured.document(rows(), ABOUT)
    (tmp_path / measured.FILE).write_text(json.dumps(document), encoding="utf-8")
    once = measured.with_sentence("# X\n\n<!-- screen -->\n\nmore\n", tmp_path)
    assert once == f"# X\n\n<!-- screen -->\n{measured.sentence(document)}\n<!-- /screen -->\n\nmore\n"
    assert measured.with_sentence(once, tmp_path) == once
