"""The table of probes: scores by hand, differences to the baseline, and none without one."""

import pandas as pd
import pytest
from pretext3d.commands.compare.probes import probe_table, probe_tables

ARMS = {"scratch": 2, "vp": 3, "intensities": 4}  # of four cases, those that are found


def results() -> pd.DataFrame:
    """Four cases of two classes: the first ones are found."""
    classes, other = ["a", "b", "a", "b"], {"a": "b", "b": "a"}
    tables = [
        pd.DataFrame(
            {
                "arm": arm, "num_labelled": 5, "seed": 0, "reader": reader, "case": list("wxyz"),
                "subject": list("wxyz"), "class": classes,
                "predicted": [one if n < right else other[one] for n, one in enumerate(classes)],
            }
        )
        for arm, right in ARMS.items()
        for reader in ("linear", "knn")
    ]  # fmt: skip
    return pd.concat(tables, ignore_index=True)


def test_differences_are_to_scratch_or_else_to_intensities() -> None:
    """vp: 2 of 2 cases of a, 1 of 2 of b: 0.75; scratch: 1 of 2 of each: 0.5."""
    table = probe_table(results(), ["scratch", "vp", "intensities"], {5: 0.1})
    assert table[0].count("difference to scratch [95 %] | p |") == 2
    assert table[3].startswith("| 5 (10 %) | vp | 0.750 | +0.250 [")
    assert table[3].count("| 0.750 | +0.250 [") == 2
    table = probe_table(results(), ["vp", "intensities"], {})
    assert "difference to intensities [95 %]" in table[0]
    assert table[2].startswith("| 5 | vp | 0.750 | -0.250 [")


def test_p_is_corrected_for_all_arms_and_numbers_of_labels_of_a_reader() -> None:
    """Two arms with two numbers of labels are four tests, of one reader: p is four times what it is alone."""
    cases = [f"c{n}" for n in range(8)]
    none = pd.DataFrame({"case": cases, "subject": cases, "class": "a", "predicted": "b", "seed": 0})
    arms = [("scratch", "b"), ("vp", "a"), ("intensities", "a")]
    tables = [
        none.assign(arm=arm, predicted=found, num_labelled=n, reader=reader)
        for arm, found in arms
        for n in (5, 10)
        for reader in ("linear", "knn")
    ]
    found = probe_tables(pd.concat(tables, ignore_index=True), [arm for arm, _ in arms])
    alone = 2 / 2**8  # all of eight subjects have one sign
    for table in found.values():
        p = table["difference_p"].dropna()
        assert p.tolist() == pytest.approx([4 * alone] * 4)


def test_scores_without_differences_where_no_baseline_is_there() -> None:
    assert probe_table(results(), ["vp"], {}) == [
        "| labelled | arm | linear probe | nearest neighbours |",
        "| --- | --- | --- | --- |",
        "| 5 | vp | 0.750 | 0.750 |",
    ]
