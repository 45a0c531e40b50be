"""The shop's own files: ids as the model has them, and clear words for what cannot be read."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys_pipeline.core.errors import InputError
from recsys_pipeline.storage.catalogue import read_catalogue, read_id_list
from recsys_pipeline.storage.feedback import Feedback

TEXT, INTEGERS = pa.string(), pa.int64()


@pytest.fixture
def written(tmp_path):
    def write(*lines, name="catalogue.csv"):
        (tmp_path / name).write_text("\n".join(lines) + "\n")
        return str(tmp_path / name)

    return write


def content(entries):
    columns = entries.listed.ids.to_pylist(), entries.available.tolist(), entries.categories.to_pylist()
    return list(zip(*columns, strict=True))


def test_ids_keep_their_zeros(written):
    path = written("name,category,ProductCode,available", "x,shoes,0073,true", "y,,9,FALSE")

    assert content(read_catalogue(path, Feedback(), TEXT)) == [("0073", True, "shoes"), ("9", False, None)]


def test_ids_are_integers_where_the_models_are(written):
    """What is no integer cannot be an item of the model: it is counted."""
    path = written("ProductCode", "12", "0073", "A1")
    entries = read_catalogue(path, Feedback(), INTEGERS)

    assert (content(entries), entries.listed.n_other) == ([(12, True, None)], 2)


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ("true", True),
        ("True", True),
        ("1", True),
        ("YES", True),
        (" no ", False),
        ("0", False),
        ("false", False),
    ],
)
def test_words_for_available(written, value, meant):
    path = written("ProductCode,available", f"a,{value}")

    assert content(read_catalogue(path, Feedback(), TEXT)) == [("a", meant, None)]


@pytest.mark.parametrize("available", [pa.array([True, False]), pa.array([1, 0]), pa.array(["yes", "no"])])
@pytest.mark.parametrize("category", [pa.array([3, None]), pa.array(["3", "null"])])
def test_parquet_has_types_of_its_own(tmp_path, available, category):
    table = {"ProductCode": pa.array([1, 2]), "available": available, "category": category}
    pq.write_table(pa.table(table), tmp_path / "catalogue.parquet")
    path = str(tmp_path / "catalogue.parquet")

    assert content(read_catalogue(path, Feedback(), TEXT)) == [("1", True, "3"), ("2", False, None)]
    assert content(read_catalogue(path, Feedback(), INTEGERS)) == [(1, True, "3"), (2, False, None)]


def test_the_same_row_twice_is_one_item(written):
    path = written("ProductCode,available,category", "a,1,x", "b,0,", "a,true,x")

    assert content(read_catalogue(path, Feedback(), TEXT)) == [("a", True, "x"), ("b", False, None)]


def test_the_files_of_a_folder_are_one_catalogue(written, tmp_path):
    written("ProductCode,available", "b,0", name="2.csv")
    written("ProductCode,category", "a,x", name="1.csv")

    assert content(read_catalogue(str(tmp_path), Feedback(), TEXT)) == [("a", True, "x"), ("b", False, None)]


@pytest.mark.parametrize(
    ("header", "absent"),
    [
        ("ProductCode,available,category", []),
        ("ProductCode,availabel,category", ["available"]),
        ("ProductCode,title,price", ["available", "category"]),
    ],
)
def test_columns_that_a_catalogue_does_not_have_are_told(written, header, absent):
    assert read_catalogue(written(header, "a,1,2"), Feedback(), TEXT).absent == absent


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["ProductCode,available", "a,1", "b,perhaps"],
            r"catalogue.csv: line 3 has 'perhaps' as `available`; write",
        ),
        (["ProductCode,available", "a,"], r"catalogue.csv: line 2 has '' as `available`"),
        (
            ["ProductCode,available", "a,1", "b,1", "a,0"],
            r"line 4 says something else of ProductCode 'a' than line 2",
        ),
        (["ProductCode,category", "a,x", "a,y"], r"line 3 says something else of ProductCode 'a'"),
        (["ProductCode,category", "a,x", "a,"], r"line 3 says something else of ProductCode 'a'"),
        (["ProductCode,available", "a,1", " ,1"], r"catalogue.csv: line 3 has a blank ProductCode"),
        (["ProductCode,available", "NULL,1"], r"catalogue.csv: line 2 has a blank ProductCode"),
        (["ProductCode,available", "a,1", "b"], r"catalogue.csv: line 3 is no row: 1 columns instead of 2"),
        (
            ["item,available", "a,1"],
            r"no column 'ProductCode'; it has 'item', 'available'. Name the column so",
        ),
        (["ProductCode,available"], r"catalogue.csv has no rows, only a header"),
    ],
)
def test_what_cannot_be_read_is_named_by_file_and_line(written, lines, message):
    with pytest.raises(InputError, match=message):
        read_catalogue(written(*lines), Feedback(), TEXT)


def test_a_file_that_does_not_exist_is_named_by_its_own_setting(tmp_path):
    with pytest.raises(
        InputError, match=r"none.csv does not exist. Set RECSYS_CATALOGUE, or `path` of catalogue"
    ):
        read_catalogue(str(tmp_path / "none.csv"), Feedback(), TEXT)
    with pytest.raises(InputError, match=r"none.csv does not exist. Set RECSYS_DENY_LIST"):
        read_id_list(str(tmp_path / "none.csv"), Feedback(), TEXT, "RECSYS_DENY_LIST")


def test_a_list_of_ids(written):
    path = written("ProductCode", "9", "007", "9")

    assert read_id_list(path, Feedback(), TEXT, "RECSYS_DENY_LIST").ids.to_pylist() == ["9", "007"]
    ids, n_other = read_id_list(path, Feedback(), INTEGERS, "RECSYS_DENY_LIST")
    assert (ids.to_pylist(), n_other) == ([9], 1)


def test_the_feedbacks_delimiter_is_the_catalogues_too(written):
    path = written("ProductCode;available", "a;no")

    assert content(read_catalogue(path, Feedback(delimiter=";"), TEXT)) == [("a", False, None)]
