"""`recsys`: the releases of a warehouse and what they recommend, for a terminal and for programs."""

import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from upath import UPath

try:
    from recsys_pipeline import settings
except click.ClickException as error:
    # Before there is a command that could say it.
    error.show()
    sys.exit(error.exit_code)
from recsys_pipeline.core.columns import MAP, MAP_AT_10, MODEL
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.evaluation import TUNED
from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.locations import checked_location
from recsys_pipeline.reporting.model import told_hyperparameters
from recsys_pipeline.reporting.tables import text_table
from recsys_pipeline.storage import publishing, releases
from recsys_pipeline.storage.atomic import is_local
from recsys_pipeline.storage.locations import opened_location
from recsys_pipeline.storage.models import CARD

if TYPE_CHECKING:
    import pyarrow as pa

    from recsys_pipeline.core.search import KnownTrial

_JSON = click.option("--json", "as_json", is_flag=True, help="For programs: one JSON document.")
_VERSION = click.argument("version", required=False)


class _Group(click.Group):
    """Ends with one sentence where an input is at fault."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except InputError as error:
            raise click.ClickException(str(error)) from None
        except OSError as error:
            where = error.filename or "input or output"
            raise click.ClickException(f"{where}: {error.strerror or error}") from None
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            # Each object store has errors of its own, such as for credentials that are missing.
            if isinstance(context.obj, UPath) and not is_local(context.obj):
                raise click.ClickException(f"{context.obj}: {error}") from error
            raise


def _location(_: click.Context, __: click.Parameter, text: str) -> UPath:
    try:
        return opened_location(checked_location(text))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--warehouse",
    default=lambda: settings.WAREHOUSE,
    show_default="RECSYS_WAREHOUSE",
    callback=_location,
    help="Folder or object-store URL with the releases.",
)
@click.version_option(package_name="recsys_pipeline")
@click.pass_context
def main(context: click.Context, warehouse: UPath) -> None:
    """Look at what was released, go back to an earlier release, and ask for recommendations."""
    context.obj = warehouse


@main.group("releases", cls=_Group)
def of_releases() -> None:
    """List, show, verify, roll back and rebuild releases."""


@of_releases.command("list")
@_JSON
@click.pass_obj
def list_releases(warehouse: UPath, as_json: bool) -> None:
    """All releases that are kept, the newest first."""
    pointer = releases.read_pointer(warehouse)
    rows = [_row(warehouse, version, pointer) for version in reversed(pointer.published)]
    if as_json:
        _print_json({"current": pointer.version, "hold": pointer.hold_as_json, "releases": rows})
        return
    header = ["", "version", "created", "MAP@10", "users", "items", "hyperparameters"]
    lines = [
        [
            row["state"],
            row["version"],
            row.get("created", ""),
            _fixed(row.get("map")),
            _grouped(row.get("users")),
            _grouped(row.get("items")),
            row.get("hyperparameters", row.get("problem", "")),
        ]
        for row in rows
    ]
    click.echo(text_table(header, lines))
    _tell_hold(pointer)


def _row(warehouse: UPath, version: str, pointer: releases.Pointer) -> dict[str, Any]:
    """What the list says of a release; one whose manifest is damaged is listed too."""
    states = {pointer.version: "current", pointer.previous: "before"}
    row: dict[str, Any] = {"version": version, "state": states.get(version, "")}
    try:
        manifest = releases.read_manifest(_folder(warehouse, version))
    except InputError as error:
        return {**row, "problem": str(error)}
    hyperparameters = Hyperparameters.from_mapping(manifest["hyperparameters"])
    return {
        **row,
        "created": manifest["created"],
        "map": _map_of(manifest),
        "users": manifest["counts"].get("users"),
        "items": manifest["counts"].get("items"),
        "hyperparameters": told_hyperparameters(hyperparameters),
    }


def _map_of(manifest: Mapping[str, Any]) -> float | None:
    """On data that the search never scored, where that was measured; else that of the search."""
    for row in manifest.get("evaluation", {}).get("models", []):
        if row[MODEL] == TUNED:
            return float(row[MAP])
    of_search: float | None = manifest["metrics"].get(MAP_AT_10)
    return of_search


@of_releases.command(short_help="How a release was made and how good it is.")
@_VERSION
@click.option("--card", is_flag=True, help="The model card instead: Markdown.")
@_JSON
@click.pass_obj
def show(warehouse: UPath, version: str | None, card: bool, as_json: bool) -> None:
    """How a release was made, how good it is and why it was released; the current one by default."""
    folder = _folder(warehouse, version)
    manifest = releases.read_manifest(folder)
    if card:
        click.echo(releases.read_text(folder, manifest, CARD))
        return
    if as_json:
        _print_json(manifest)
        return
    counts = manifest["counts"]
    rows = [
        ["version", manifest["version"]],
        ["created", manifest["created"]],
        ["folder", str(folder.path)],
        ["verdict", manifest.get("evaluation", {}).get("verdict", "not recorded")],
        ["hyperparameters", told_hyperparameters(Hyperparameters.from_mapping(manifest["hyperparameters"]))],
        ["solver", manifest["solver"]],
        [
            "trained on",
            f"{counts.get('interactions', 0):,} interactions of {counts.get('users', 0):,} users and "
            f"{counts.get('items', 0):,} items",
        ],
        ["files", f"{len(manifest['files'])}, {_size(folder, manifest):,} bytes"],
    ]
    if forgotten := manifest.get("card", {}).get("feed", {}).get("forgotten"):
        from recsys_pipeline.reporting.feed import told_forgotten

        rows.append(["forgotten", told_forgotten(forgotten)])
    reasons = manifest.get("decision", {}).get("reasons_for", [])
    rows += [["" if number else "released because", reason] for number, reason in enumerate(reasons)]
    click.echo(text_table(None, rows))


def _size(folder: releases.ReleaseFolder, manifest: Mapping[str, Any]) -> int:
    return sum(int((folder.path / name).stat().st_size) for name in manifest["files"])


@of_releases.command(short_help="Whether every file is what was published.")
@_VERSION
@_JSON
@click.pass_obj
def verify(warehouse: UPath, version: str | None, as_json: bool) -> None:
    """Read every file of a release and compare its SHA-256; the current one by default.

    Ends with status 1 if anything is not as it was published.
    """
    folder = _folder(warehouse, version)
    problems = list(releases.problems_of(folder))
    if as_json:
        _print_json({"version": folder.path.name, "whole": not problems, "problems": problems})
    elif problems:
        click.echo("\n".join(problems), err=True)
    else:
        n_files = len(releases.read_manifest(folder)["files"])
        click.echo(f"{folder.path.name}: {n_files} files and the manifest are what was published")
    if problems:
        sys.exit(1)


@of_releases.command(short_help="Go back to an earlier release, at once.")
@_VERSION
@click.option("--reason", default="", help="Kept with the hold, for whoever wonders.")
@_JSON
@click.pass_obj
def rollback(warehouse: UPath, version: str | None, reason: str, as_json: bool) -> None:
    """Point readers to an earlier release, at once; by default the one before the current one.

    The database that RECSYS_DELIVERY names, if it is set, gets that release too.

    Nothing new is released from then on: the nightly run fails and says why, until `recsys releases resume`.
    """
    pointer = publishing.roll_back(warehouse, version, reason, is_unwanted=_has_the_forgotten)
    # Before what may still fail: this is done.
    click.echo(f"readers get {pointer.version} now", err=as_json)
    _follow(warehouse)
    if as_json:
        _print_json({"current": pointer.version, "hold": pointer.hold_as_json})
    else:
        _tell_hold(pointer)


@of_releases.command(short_help="Make a release again and compare, file by file.")
@_VERSION
@click.option("--feedback", default=None, help="Where the feed is now; by default where it was.")
@click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    help="A new folder, for what is made; it stays.",
)
@_JSON
@click.pass_obj
def rebuild(
    warehouse: UPath, version: str | None, feedback: str | None, keep: Path | None, as_json: bool
) -> None:
    """Make a release again from its manifest and the same feed; the current one by default.

    Says of each file whether it came out identical, byte by byte, and ends with status 1 if one did not. The
    warehouse is not changed.
    """
    # Imported here: it loads what a run loads.
    from recsys_pipeline.rebuilding import rebuild as make_again

    folder = _folder(warehouse, version)
    with tempfile.TemporaryDirectory(prefix="recsys-rebuild-") as temporary:
        if keep:
            keep.mkdir(parents=True)
        made = make_again(folder, keep or Path(temporary), feedback, lambda told: click.echo(told, err=True))
    if as_json:
        _print_json({"version": folder.path.name, "identical": made.identical, **made._asdict()})
    else:
        rows = [[name, "identical" if same else "differs"] for name, same in made.files.items()]
        click.echo(text_table(None, rows))
        for library, (was, now) in made.versions.items():
            click.echo(f"made with {library} {was}, rebuilt with {now}")
    if not made.identical:
        sys.exit(1)


@of_releases.command(short_help="Let new releases come again.")
@_JSON
@click.pass_obj
def resume(warehouse: UPath, as_json: bool) -> None:
    """End the hold that a rollback began: the next run may release again."""
    hold = releases.read_pointer(warehouse).hold
    pointer = publishing.resume(warehouse)
    if as_json:
        _print_json({"current": pointer.version, "hold": None})
        return
    told = "the next run may release again" if hold else "nothing was held back"
    click.echo(f"{told}; readers get {pointer.version}")


@main.command(short_help="Bring the current release into the shop's database.")
@click.pass_obj
def deliver(warehouse: UPath) -> None:
    """Bring the current release into the database that RECSYS_DELIVERY names; rollback does so by itself."""
    if not settings.DELIVERY:
        raise click.ClickException("RECSYS_DELIVERY is not set: write it as postgresql://host/database.")
    _deliver(warehouse)


@main.command(short_help="All finished trials over the data of the last search.")
@_JSON
@click.pass_obj
def trials(warehouse: UPath, as_json: bool) -> None:
    """All finished trials over the data of the last search, those of earlier searches too, the best first.

    The best is that by what selects in the last search, MAP@10 by default. Marked are those in
    `grid_search_results`. What differs between searches beside the hyperparameters stands with each trial:
    weights, solver, seed, and k up to which its ranks are known.
    """
    # Imported here: they load Arrow or numpy, which the other commands do without.
    from recsys_pipeline.core.metadata import stored_metadata
    from recsys_pipeline.core.search import SEARCHES_DIFFER_IN, best_known_first
    from recsys_pipeline.core.selected import selection_of
    from recsys_pipeline.reporting.known import told_known
    from recsys_pipeline.storage.journal import known_trials
    from recsys_pipeline.storage.reading import read_table
    from recsys_pipeline.storage.states import States

    if not States(warehouse, "grid_search_results").exists():
        if as_json:
            _print_json({"selected_by": None, "trials": []})
        else:
            click.echo("No search has finished yet: materialize the asset grid_search_results.")
        return
    table = read_table(warehouse, "grid_search_results")
    stored, selection = stored_metadata(table), selection_of(table)
    last = stored.get("journal", {})
    in_table = {Hyperparameters.from_mapping(row) for row in table.to_pylist()}
    known = [each for each in known_trials(warehouse) if each.search["data"] == last.get("data")]
    best_first = best_known_first(known, _figures(warehouse, table, known))
    rows = [
        {
            "in_last_table": each.search == last
            and each.hyperparameters in in_table
            and each.strengths == stored["strengths"][each.hyperparameters.strengths],
            "figure": figure,
            "scores": each.scores._asdict(),
            **{name: each.search[name] for name in (*SEARCHES_DIFFER_IN, "versions")},
            "hyperparameters": each.hyperparameters.as_dict(),
            "strengths": each.strengths,
        }
        for each, figure in best_first
    ]
    if as_json:
        _print_json({"selected_by": selection.name, "trials": rows})
        return
    if not rows:
        click.echo("The journal knows no trial over the data of the last search.")
        return
    by_other = not selection.is_default
    header = ["", *([selection.name] if by_other else []), "MAP@10", "+-", *SEARCHES_DIFFER_IN]
    lines = [
        [
            "last table" if row["in_last_table"] else "",
            *([_fixed(row["figure"])] if by_other else []),
            *(_fixed(row["scores"].get(name)) for name in ("map", "standard_error")),
            *(str(row[name]) for name in SEARCHES_DIFFER_IN),
            told,
        ]
        for row, told in zip(rows, told_known([each for each, _ in best_first]), strict=True)
    ]
    click.echo(text_table([*header, "hyperparameters"], lines))


def _figures(warehouse: UPath, table: "pa.Table", known: "Sequence[KnownTrial]") -> list[float | None]:
    """Of each trial what selects in the last search; None where it cannot be had any more."""
    from recsys_pipeline.core.columns import SPLIT, USER_INDEX
    from recsys_pipeline.core.lineage import Lineage
    from recsys_pipeline.core.metrics import group_by_user
    from recsys_pipeline.core.selected import selection_of
    from recsys_pipeline.storage.reading import read_table

    selection = selection_of(table)
    if selection.is_default:
        return [each.scores.map for each in known]
    split = read_table(warehouse, "leave_one_out_split")
    of_table, of_split = Lineage.of(table), Lineage.of(split)
    if not of_table or not of_split or of_table.ancestors.get(of_split.asset) != of_split.write_id:
        # Other interactions are held out by now.
        return [None] * len(known)
    groups = group_by_user(*(split[name].to_numpy() for name in (SPLIT, USER_INDEX)))
    return [each.figure(selection, *groups) for each in known]


@main.command()
@click.argument("user")
@click.option("-n", default=10, show_default=True, type=click.IntRange(min=1), help="At most so many.")
@click.option(
    "--blend/--no-blend",
    default=None,
    help="Score by the blend, or by ALS alone; by default as the release's own lists are scored.",
)
@_JSON
@click.pass_obj
def recommend(warehouse: UPath, user: str, n: int, blend: bool | None, as_json: bool) -> None:
    """The best items for USER by the current release."""
    _tell_table(
        warehouse, user, "users", lambda model, raw_id: model.recommend(raw_id, n, blend=blend), as_json
    )


@main.command()
@click.argument("item")
@click.option("-n", default=10, show_default=True, type=click.IntRange(min=1), help="At most so many.")
@_JSON
@click.pass_obj
def similar(warehouse: UPath, item: str, n: int, as_json: bool) -> None:
    """The items most similar to ITEM by the current release."""
    _tell_table(warehouse, item, "items", lambda model, raw_id: model.similar_items(raw_id, n), as_json)


def _tell_table(
    warehouse: UPath, text: str, kind: str, ask: Callable[[Any, int | str], Any], as_json: bool
) -> None:
    # Imported here: it loads pandas and implicit, which the other commands do without.
    from recsys_pipeline.recommender import load_model

    model = load_model(warehouse)
    try:
        table = ask(model, _raw_id(text, getattr(model, kind)))
    except (KeyError, ValueError) as error:
        raise click.ClickException(str(error.args[0])) from None
    rows = json.loads(table.to_json(orient="records"))
    if as_json:
        _print_json(rows)
    else:
        header = list(table.columns)
        click.echo(text_table(header, [[_shown(row[name]) for name in header] for row in rows]))


def _raw_id(text: str, ids: Any) -> int | str:
    """What a person typed, as the ids of the model are."""
    if ids.dtype.kind not in "iu":
        return text
    try:
        return int(text)
    except ValueError:
        raise click.ClickException(f"{text!r} is no integer, and the ids of this release are.") from None


def _folder(warehouse: UPath, version: str | None) -> releases.ReleaseFolder:
    """The folder of a release, or of the current one."""
    current = releases.current_release(warehouse)
    if version in (None, current.path.name):
        return current
    pointer = releases.read_pointer(warehouse)
    if version not in pointer.published:
        there = ", ".join(pointer.published)
        raise InputError(f"{current.path.parent} holds no release {version!r}; there are: {there}.")
    return pointer.folder(current.path.parent, version)


def _has_the_forgotten(release: releases.ReleaseFolder) -> bool:
    """Whether it has users whom RECSYS_FORGET_USERS names, or without it the file of the current release."""
    if not (path := settings.FORGET_USERS or _forgotten_by_the_current(release.path.parent)):
        return False
    # Imported here: it loads Dagster.
    from recsys_pipeline.storage.feedback import Feedback
    from recsys_pipeline.storage.forgetting import holds, read_forgotten

    told = releases.read_manifest(release).get("feedback", {})
    read = {name: told[name] for name in ("delimiter", "encoding", "blank_ids") if name in told}
    return holds(release, read_forgotten(Feedback(**read, forget_users=path)))


def _forgotten_by_the_current(store: UPath) -> str:
    try:
        manifest = releases.read_manifest(releases.current_release(store))
    except InputError:
        return ""  # a rollback mends that
    return str(manifest.get("feedback", {}).get("forget_users", ""))


def _follow(warehouse: UPath) -> None:
    """Let what follows the pointer follow: the notebook's file, and the database, where there are any."""
    if (warehouse / releases.FOLDER / releases.PICKLE).exists():
        from recsys_pipeline.recommender import load_model

        model = load_model(warehouse)
        publishing.write_pickle(warehouse, model.manifest["version"], model.model)
    if settings.DELIVERY:
        try:
            _deliver(warehouse)
        except (InputError, OSError) as error:
            raise InputError(
                f"the database still has another release: {error} Then run `recsys deliver`."
            ) from None


@main.command("check")
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False))
def check_configuration(files: tuple[str, ...]) -> None:
    """Check the settings and files of run configuration.

    Says whether the settings can be read and the files are valid; nothing is run.
    """
    for file in dict.fromkeys([*files, *([settings.RUN_CONFIG] if settings.RUN_CONFIG else [])]):
        _check_file(file)
        click.echo(f"{file} is valid")


def _check_file(file: str) -> None:
    # Imported here: it takes Dagster, which nothing else of `recsys` does.
    from recsys_pipeline.automation.jobs import run_config
    from recsys_pipeline.configuration import told_invalid
    from recsys_pipeline.definitions import defs

    content = run_config(file) or {}
    if told := told_invalid(defs.resolve_job_def("retrain"), content):
        raise click.ClickException(f"{file}: {told}")


def _deliver(warehouse: UPath) -> None:
    # Imported here: it needs the packages of the extra `postgres`.
    from recsys_pipeline.storage.delivery import deliver_current

    deliver_current(
        warehouse,
        settings.DELIVERY,
        lambda told: click.echo(told, err=True),
        keep_before=not settings.FORGET_USERS,
    )


def _tell_hold(pointer: releases.Pointer) -> None:
    if pointer.hold:
        click.echo(f"new {pointer.hold.told()}")


def _print_json(content: Any) -> None:
    click.echo(json.dumps(content, indent=2))


def _shown(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _fixed(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _grouped(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


if __name__ == "__main__":
    main()
