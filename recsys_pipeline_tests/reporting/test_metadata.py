"""What comes from a feed is shown as data, cut to what a person can read."""

import pytest

from recsys_pipeline.reporting.metadata import (
    counts_table,
    in_order,
    markdown_table,
    percent,
    shown,
    table_lines,
    told_beside,
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("view", "view", id="plain"),
        pytest.param("query_search", r"query\_search", id="emphasis"),
        pytest.param("![x](http://h/p.png)", r"\!\[x\](http://h/p.png)", id="an image link"),
        pytest.param("<img src=x>", r"&lt;img src=x\>", id="HTML"),
        pytest.param("a|b\nc", r"a\|b\\nc", id="a cell and a line of their own"),
        pytest.param("\x1b[31mred", r"\\x1b\[31mred", id="a control character"),
    ],
)
def test_nothing_in_a_name_means_anything_in_markdown(name, expected):
    assert shown(name) == expected


def test_a_name_is_cut():
    assert shown("x" * 300_000) == "x" * 79 + "…"


def test_a_table_of_names_ends_after_fifty_and_counts_the_rest():
    lines = counts_table("event", {f"e{n}": 1000 - n for n in range(60)}).md_str.splitlines()

    assert len(lines) == 2 + 50 + 1
    assert lines[-1] == f"| 10 more | {sum(1000 - n for n in range(50, 60)):,} |"


def test_a_table_has_numbers_text_and_gaps():
    assert markdown_table(["a", "b"], [[0.123456789, None], [12, "x"]]).md_str.splitlines() == [
        "| a | b |",
        "| --- | --- |",
        "| 0.1235 |  |",
        "| 12 | x |",
    ]


def test_numbers_have_four_significant_digits_and_separators():
    rows = [[1234567, 1234567.8], [0.00012345678, True]]

    assert markdown_table(["a", "b"], rows).md_str.splitlines()[2:] == [
        "| 1,234,567 | 1,234,568 |",
        "| 0.0001235 | yes |",
    ]


@pytest.mark.parametrize(
    ("header", "row", "inline"),
    [
        pytest.param(["event", "count"], ["view", 12], True, id="narrow"),
        pytest.param(list("abcde"), [1.0] * 5, True, id="five columns"),
        pytest.param(list("abcdef"), [1.0] * 6, False, id="six"),
        pytest.param(["reason", "count"], ["no user, and a reason that goes on and on", 1], False, id="wide"),
    ],
)
def test_a_table_that_a_column_of_the_ui_would_cut_is_long_enough_for_its_dialog(header, row, inline):
    """The UI shows Markdown below 1,000 letters inline."""
    table = markdown_table(header, [row])

    assert (len(table.md_str) < 1000) == inline
    # And is the same table.
    assert [line for line in table.md_str.splitlines() if "--" not in line] == [
        line for line in table_lines(header, [row]).splitlines() if "--" not in line
    ]


def test_what_a_person_wants_first_comes_first_whatever_the_order_in_which_it_was_said():
    said = [
        "where it is",
        "settings",
        "models",
        "MAP@10 (unseen)",
        "picture of the models",
        "At a glance",
        "Users",
    ]

    assert list(in_order(dict.fromkeys(said))) == [
        "At a glance",
        *("MAP@10 (unseen)", "Users"),
        *("models", "picture of the models"),
        "settings",
        "where it is",
    ]


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0, "0.0 %"), (0.241, "24.1 %"), (0.00054, "0.05 %"), (0.00001, "less than 0.01 %"), (1, "100.0 %")],
)
def test_a_share_is_told_in_percent_and_what_is_there_is_never_0(share, expected):
    assert percent(share) == expected


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        ((0.1, 0.3), "better than popularity by 0.2000, 95 % 0.1000 to 0.3000"),
        ((-0.3, -0.1), "worse than popularity by 0.2000, 95 % 0.1000 to 0.3000"),
        ((-0.1, 0.5), "not distinguishable from popularity: +0.2000, 95 % -0.1000 to +0.5000"),
    ],
)
def test_a_comparison_says_what_is_more_than_chance(interval, expected):
    difference = -0.2 if interval[1] < 0 else 0.2

    assert told_beside("popularity", difference, *interval) == expected
