"""Tables for a terminal show what is in them, and let nothing in them steer the terminal."""

from recsys_pipeline.reporting.tables import text_table


def test_an_id_with_control_characters_is_written_out():
    told = text_table(["item"], [["\x1b[31mred\x07"], ["42"], ["Schraube ä"]])

    assert told.splitlines() == ["item", r"\x1b[31mred\x07", "42", "Schraube ä"]
