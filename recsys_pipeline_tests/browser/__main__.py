"""`python -m recsys_pipeline_tests.browser FOLDER`: walk through the web UI, taking pictures."""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from recsys_pipeline_tests.browser.served import Served
from recsys_pipeline_tests.browser.walk import SIZE, Walk

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main() -> int:
    """Walk; 0 also where there is no browser to walk with, which is said."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="for the pictures")
    folder = parser.parse_args().folder
    browser = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if browser is None:
        print(f"NOT WALKED: there is none of {', '.join(_BROWSERS)} (on Debian: apt-get install chromium)")
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        settings = {"RECSYS_WAREHOUSE": str(Path(scratch) / "warehouse")}
        # Chromium's own sandbox cannot start as root, as in a container; it opens only this UI.
        opened = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        with Served(Path(scratch), settings) as served:
            walk = Walk(opened.new_page(viewport=SIZE), served, folder)
            try:
                _go(walk)
            except BaseException:
                walk.failed()
                raise
        opened.close()
    print(f"{len(walk.taken)} pictures are in {folder}")
    return 0


def _go(walk: Walk) -> None:
    walk.graph()
    walk.terminate()
    walk.materialize()
    walk.materialized_graph()
    walk.asset("raw_feedback", ["At a glance", "Events"])
    walk.asset("grid_search_results", ["At a glance", "MAP@10 (search)"])
    walk.picture("grid_search_results", "picture of hyperparameters")
    walk.asset("evaluation", ["At a glance", "MAP@10 (unseen)"])
    walk.picture("evaluation", "picture of models")
    walk.picture("model_card", "card")
    walk.page("checks", "/assets/best_model?view=checks", ["Passed"])
    walk.page("runs", "/runs", ["Success"])
    walk.page("automation", "/automation", ["nightly"])
    walk.page("launchpad", "/locations/recsys_pipeline.definitions/jobs/retrain/playground", ["Launch Run"])


if __name__ == "__main__":
    sys.exit(main())
