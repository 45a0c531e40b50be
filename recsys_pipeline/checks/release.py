"""Claims about what readers get."""

from collections.abc import Iterator

from dagster import AssetCheckResult

from recsys_pipeline.checks.claims import claim, claims
from recsys_pipeline.core.card import Card
from recsys_pipeline.core.model import Model
from recsys_pipeline.storage.releases import current_release, problems_of, read_manifest, read_pointer
from recsys_pipeline.storage.warehouse import Warehouse

_ABOUT = "the_card_is_about_this_model"
_WHOLE = "the_release_is_whole"


@claims(
    "model_card",
    {_ABOUT: "The card has the hyperparameters and the counts of the model at hand."},
    inputs=["model_card", "best_model"],
    blocking=[_ABOUT],
)
def claims_of_model_card(model_card: Card, best_model: Model) -> Iterator[AssetCheckResult]:
    """What the card says beside what the manifest of the model says."""
    counts = model_card.facts["counts"]
    there = {
        "users": len(best_model.users),
        "items": len(best_model.items),
        "interactions": best_model.contents.pattern.n_interactions,
    }
    differing = [name for name, count in there.items() if counts.get(name) != count]
    if model_card.facts["model"]["hyperparameters"] != best_model.manifest["hyperparameters"]:
        differing.append("hyperparameters")
    yield claim(
        _ABOUT,
        not differing and bool(model_card.text.strip()),
        f"the card speaks of {', '.join(f'{counts.get(name, 0):,} {name}' for name in there)}; it differs "
        f"from the model in {', '.join(differing) or 'nothing'}.",
    )


@claims("release", {_WHOLE: "Every file of the current release is what was published, by its SHA-256."})
def claims_of_release(warehouse: Warehouse) -> Iterator[AssetCheckResult]:
    """The files are read as readers read them."""
    release = current_release(warehouse.root)
    problems = list(problems_of(release))
    n_files = len(read_manifest(release)["files"]) if not problems else 0
    version = read_pointer(warehouse.root).version
    told = "; ".join(problems) or f"{n_files} files"
    yield claim(_WHOLE, not problems, f"release {version}: {told}.")
