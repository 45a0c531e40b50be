"""What comes from a feed is shown as data, cut to what a person can read."""

import pytest

from recsys_pipeline.reporting.metadata import counts_table, markdown_table, shown


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
    assert lines[-1] == f"| 10 more | {sum(1000 - n for n in range(50, 60))} |"


def test_a_table_has_numbers_text_and_gaps():
    assert markdown_table(["a", "b"], [[0.123456789, None], [12, "x"]]).md_str.splitlines() == [
        "| a | b |",
        "| --- | --- |",
        "| 0.123457 |  |",
        "| 12 | x |",
    ]
