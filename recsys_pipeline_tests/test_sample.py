"""The bundled sample: made by its script byte for byte, with the notebook's counts."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from recsys_pipeline_tests.conftest import PROJECT


@pytest.fixture(scope="module")
def events(sample_csv):
    return pd.read_csv(sample_csv, dtype={"ProductCode": str})


def test_the_script_reproduces_it_byte_for_byte(sample_csv, tmp_path):
    made = tmp_path / "sample.csv"
    subprocess.run([sys.executable, PROJECT / "data" / "make_sample.py", made], check=True)

    assert made.read_bytes() == sample_csv.read_bytes()


def test_it_has_the_notebooks_counts(events, sample_csv):
    interactions = events.drop_duplicates(["UserID", "ProductCode"])

    assert interactions["UserID"].nunique() == 5_000
    assert interactions["ProductCode"].nunique() == 34_797
    assert len(interactions) == 94_895
    assert interactions.groupby("UserID").size().min() == 3
    assert set(events["Event"]) == {"view", "query_search", "click", "compare"}
    assert len(events) > 1.5 * len(interactions)
    assert sample_csv.stat().st_size < 6_000_000


def test_product_codes_are_ean_like(events):
    codes = events["ProductCode"].unique()
    digits = np.array([list(code) for code in codes]).astype(int)

    assert digits.shape[1] == 13
    assert ((digits * np.resize([1, 3], 13)).sum(axis=1) % 10 == 0).all()
    assert any(code.startswith("00") for code in codes)


def test_a_few_items_are_popular_and_most_are_not(events):
    popularity = events.groupby("ProductCode")["UserID"].nunique()

    assert popularity.median() <= 2
    assert popularity.max() > 200
