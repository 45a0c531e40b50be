"""A walk through the web UI, which asserts what it shows and takes a picture at each station."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recsys_pipeline_tests.browser.served import Served, wait_until

SPINE = (
    "raw_feedback",
    "feedback_strengths",
    "bm25_matrix",
    "leave_one_out_split",
    "grid_search_results",
    "best_model",
)
# With the notebook's 64 trials on a machine that has other work.
_RUN_SECONDS = 1200
_PAGE_SECONDS = 60
_WORKER = "recsys_pipeline.engines.local.worker"
SIZE = {"width": 1500, "height": 1000}
# The graph is drawn as large as the window allows.
_WIDE = {"width": 2400, "height": 1400}
_MARGIN = 24
# Milliseconds until what moves on a page has come to rest.
_REST = 2000
_ENDED = {"SUCCESS", "FAILURE", "CANCELED"}


class Walk:
    """A browser's page on a served UI.

    Args:
        page: of Playwright.
        served: what it looks at.
        folder: for the pictures.
    """

    def __init__(self, page: Any, served: Served, folder: Path) -> None:
        self._page, self._served, self._folder = page, served, folder
        self.taken: list[Path] = []
        page.set_default_timeout(1000 * _PAGE_SECONDS)

    def graph(self) -> None:
        """The graph has every asset of the definitions, the six of the spine among them."""
        assets = self._served.assets()
        assert assets.issuperset(SPINE), assets
        self._take_graph(len(assets), "graph")

    def terminate(self) -> None:
        """A run that is terminated while it searches ends, says what it leaves, and leaves no worker."""
        before = len(self._served.runs())
        self._page.get_by_role("button", name="Materialize all").click()
        wait_until("no run is launched", lambda: len(self._served.runs()) > before, _PAGE_SECONDS)
        run = self._served.runs()[0]
        self._open(f"/runs/{run['id']}")
        self._page.get_by_text(re.compile(r"trial \d+ of \d+")).first.wait_for(timeout=1000 * _RUN_SECONDS)
        assert self._served.processes(_WORKER)
        self._page.get_by_role("button", name="Terminate").first.click()
        dialog = self._page.get_by_role("dialog")
        dialog.get_by_role("button", name=re.compile("Terminate")).last.click()
        run = self._served.wait_for_run(_ENDED, _PAGE_SECONDS)
        assert run["status"] == "CANCELED", run
        wait_until("a worker is left", lambda: not self._served.processes(_WORKER), _PAGE_SECONDS)
        self._open(f"/runs/{run['id']}")
        self._page.get_by_text("Canceled", exact=True).first.wait_for()
        self._page.get_by_text(re.compile(r"terminated, \d+ of \d+ trials kept")).first.wait_for()
        self._take("terminated")

    def materialize(self) -> None:
        """Materialize all is clicked, and the run succeeds; its search goes on where the last one ended."""
        self._open("/asset-groups")
        before = len(self._served.runs())
        self._page.get_by_role("button", name="Materialize all").click()
        wait_until("no run is launched", lambda: len(self._served.runs()) > before, _PAGE_SECONDS)
        run = self._served.wait_for_run(_ENDED, _RUN_SECONDS)
        assert run["status"] == "SUCCESS", run
        self._open(f"/runs/{run['id']}")
        self._page.get_by_text("Success", exact=True).first.wait_for()
        self._take("run")

    def materialized_graph(self) -> None:
        """Every asset of the graph is materialized."""
        assets = self._served.assets()
        self._take_graph(len(assets), "graph-materialized")
        done = self._page.get_by_role("img", name="run_success")
        assert done.count() == len(assets), f"{done.count()} of {len(assets)} assets are materialized"

    def asset(self, name: str, said: Sequence[str]) -> None:
        """The page of an asset says what it should."""
        self._open(f"/assets/{name}?view=overview")
        for text in said:
            self._page.get_by_text(text, exact=True).first.wait_for()
        # The table of metadata is below what Dagster itself says of an asset.
        first = self._page.get_by_text(said[0], exact=True).first
        first.evaluate("e => (e.closest('table') || e).scrollIntoView({block: 'start'})")
        self._take(name.replace("_", "-"))

    def picture(self, asset: str, entry: str) -> None:
        """A picture in the metadata of an asset is rendered in the dialog."""
        self._open(f"/assets/{asset}?view=overview")
        row = self._page.locator("tr", has=self._page.get_by_text(entry, exact=True)).first
        row.get_by_text("Show Markdown").click()
        image = self._page.get_by_role("dialog").locator("img").first
        image.wait_for()
        wait_until(f"{entry} of {asset} is not rendered", lambda: image.evaluate("i => i.naturalWidth"), 20)
        # From its beginning: a long one opens at its end, where the button has the focus.
        image.scroll_into_view_if_needed()
        self._take(f"{asset}-{entry}")

    def page(self, name: str, path: str, said: Sequence[str]) -> None:
        """Another page says what it should."""
        self._open(path)
        for text in said:
            self._page.get_by_text(text).first.wait_for()
        self._take(name)

    def _take_graph(self, n_assets: int, name: str) -> None:
        """The nodes alone, as large as they are legible."""
        self._page.set_viewport_size(_WIDE)
        self._open("/asset-groups")
        nodes = self._page.locator("foreignObject")
        nodes.nth(n_assets - 1).wait_for()
        assert nodes.count() == n_assets, f"{nodes.count()} of {n_assets} assets are drawn"
        self._page.wait_for_timeout(_REST)
        boxes = [box for node in nodes.all() if (box := node.bounding_box())]
        left, top = (min(box[side] for box in boxes) - _MARGIN for side in ("x", "y"))
        right = max(box["x"] + box["width"] for box in boxes) + _MARGIN
        bottom = max(box["y"] + box["height"] for box in boxes) + _MARGIN
        self._keep(name, {"x": left, "y": top, "width": right - left, "height": bottom - top})
        self._page.set_viewport_size(SIZE)

    def failed(self) -> None:
        """Keep what is seen where the walk ends before its time."""
        self._page.screenshot(path=self._folder / "failed.png")

    def _open(self, path: str) -> None:
        self._page.goto(f"{self._served.url}{path}")
        self._page.wait_for_load_state("networkidle")

    def _take(self, name: str) -> None:
        self._page.wait_for_timeout(_REST)
        self._keep(name)

    def _keep(self, name: str, clip: dict[str, float] | None = None) -> None:
        path = self._folder / f"{re.sub('[^a-z0-9-]+', '-', name.lower())}.png"
        self._page.screenshot(path=path, clip=clip)
        self.taken.append(path)
