"""The model card: what a person who takes over a model has to know, as Markdown.

Its facts are JSON, so that the card can be rendered again from what a release keeps of them.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from recsys_pipeline.core import columns
from recsys_pipeline.core.agreement import Agreement
from recsys_pipeline.core.blending import Blend
from recsys_pipeline.core.evaluation import (
    ABLATIONS,
    BLEND,
    EASE,
    GRAPH_FILTER,
    ITEM_KNN,
    LEAKING,
    NOTEBOOK,
    POPULARITY,
    REPEAT_CONSUMPTION,
    TUNED,
)
from recsys_pipeline.core.examples import example_users, strongest_interactions
from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.metadata import stored_metadata
from recsys_pipeline.core.model import Model
from recsys_pipeline.core.scorer import blend_against_als
from recsys_pipeline.core.selected import SELECTED_BY, selection_of
from recsys_pipeline.core.selecting import Selection
from recsys_pipeline.core.sources import ALS
from recsys_pipeline.core.sources import BLEND as BY_BLEND
from recsys_pipeline.reporting.evaluation import blend_terms_lines, segments_markdown
from recsys_pipeline.reporting.metadata import escaped, fixed, interval, shown, table_lines
from recsys_pipeline.reporting.model import told_ends, told_hyperparameters, told_values
from recsys_pipeline.reporting.pictures.shown import references
from recsys_pipeline.reporting.trials import told_agreement, told_blend

Facts = Mapping[str, Any]

# What an example shows of what a user did and gets.
_SHOWN = 10
_LETTERS_OF_AN_ID = 200
_MEANINGS = {
    TUNED: "this model",
    BLEND: "this model blended with item graph, own history and popularity, as far as the blend has them",
    REPEAT_CONSUMPTION: "what the user has interacted with before, then what is popular",
    GRAPH_FILTER: "what the people have who share items with the user",
    ITEM_KNN: "the items nearest to the user's own: those that the same people have",
    EASE: "what a linear model predicts from all of the user's items",
    NOTEBOOK: "the same method as this model, not tuned",
    POPULARITY: "the most popular items, the same for everybody",
    LEAKING: "shows an effect: this model with weights that know what is hidden",
}


def card_facts(
    feed: Facts,
    evaluation: Mapping[str, pa.Table],
    grid_search_results: pa.Table,
    model: Model,
    recommendations: pa.Table,
) -> dict[str, Any]:
    """All that the card says, as JSON.

    Args:
        feed: what the events say of where they come from.
        evaluation: its tables.
        grid_search_results: of the search that the model is made from.
        model: the model.
        recommendations: at least the rows of `example_users`, saying who scored.
    """
    rows = grid_search_results.to_pylist()
    chosen = next(row for row in rows if row[columns.CHOSEN])
    pattern = model.contents.pattern
    facts = {
        "feed": dict(feed),
        "counts": {
            "users": pattern.n_users,
            "items": pattern.n_items,
            "interactions": pattern.n_interactions,
        },
        "model": {
            name: model.manifest[name]
            for name in ("hyperparameters", "seed", "solver", "strengths", "target_events", "seen_events")
        },
        "search": {
            **{
                name: stored_metadata(grid_search_results)[name]
                for name in ("strategy", "prefer", "switch", "decision", "agreement", "blend")
            },
            SELECTED_BY: selection_of(grid_search_results).as_dict(),
            "beside_baselines": stored_metadata(grid_search_results).get("beside_baselines", ""),
            "chosen": chosen,
            "trials": len(rows),
            "failed_trials": sum(row[columns.MAP_AT_10] is None for row in rows),
            "not_distinguishable": sum(row[columns.DISTINGUISHABLE] is False for row in rows),
            "at_the_ends": told_ends(grid_search_results),
        },
        "evaluation": {
            **{
                name: stored_metadata(evaluation["models"])[name]
                for name in ("k", "seeds", "protocol", "verdict", "out_of_reach", "left_out")
            },
            "models": evaluation["models"].to_pylist(),
            "segments": evaluation["segments"].to_pylist(),
            "blend_terms": stored_metadata(evaluation["models"]).get("blend_terms", []),
        },
        "scorer": stored_metadata(recommendations).get("scorer", ALS),
        "examples": _examples(model, recommendations),
    }
    as_json: dict[str, Any] = json.loads(json.dumps(_without_nan(facts)))
    return as_json


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: there is no such figure."""
    if isinstance(value, Mapping):
        return {name: _without_nan(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _examples(model: Model, recommendations: pa.Table) -> list[dict[str, Any]]:
    """Users of different activity: what they did, strongest first, and what they get, best first."""
    gets: dict[Any, list[dict[str, Any]]] = {}
    for row in recommendations.sort_by(columns.RANK).to_pylist():
        gets.setdefault(row[columns.USER], []).append(row)
    examples = []
    for example in example_users(model.contents.pattern):
        user = model.users[example.user].as_py()
        did = strongest_interactions(model.contents, example.user, _SHOWN)
        examples.append(
            {
                "user": _short(user),
                "interactions": example.interactions,
                "share": example.share,
                "did": [
                    {"item": _short(model.items[item].as_py()), "events": events} for item, events in did
                ],
                "gets": [
                    {
                        "item": _short(row[columns.ITEM]),
                        "score": row[columns.SCORE],
                        "source": row[columns.SOURCE],
                    }
                    for row in gets.get(user, [])[:_SHOWN]
                ],
            }
        )
    return examples


def _short(raw_id: Any) -> Any:
    """An id of text as far as it is shown: a manifest that carries it stays small."""
    return raw_id[:_LETTERS_OF_AN_ID] if isinstance(raw_id, str) else raw_id


def without_ids_of_users(facts: Facts) -> Facts:
    """The facts, whose examples are numbered instead of named."""
    examples = [{**example, "user": number} for number, example in enumerate(facts["examples"], 1)]
    return {**facts, "examples": examples}


def card(facts: Facts) -> str:
    """The card of these facts, which may have been through JSON: the same facts give the same text."""
    parts = [
        "# Model card",
        *_summary(facts["evaluation"]),
        "## What it was made from",
        *_data(facts["feed"], facts["counts"], facts["model"]),
        *_pictures(facts, "events_by_day", "events_by_kind", "popularity"),
        "## How good it is",
        *_quality(facts["evaluation"]),
        *_pictures(facts, "models"),
        # Cards from before the scorer was a choice do not say it.
        *_blend(facts["evaluation"], facts["search"], facts.get("scorer", ALS)),
        "## What was decided, and why",
        *_decisions(facts["search"], facts["model"]),
        *_pictures(facts, "hyperparameters", "heat_map", "best_trials"),
        "## Limits",
        *_limits(facts["evaluation"]),
        *_pictures(facts, "segments"),
        "## Examples",
        *_example_sections(facts["examples"]),
    ]
    return "\n\n".join(parts) + "\n"


def _pictures(facts: Facts, *names: str) -> list[str]:
    """Those of these names that lie beside the card; cards from before there were any have none."""
    there = facts.get("pictures", {})
    return references(there[name] for name in names if name in there)


def _summary(evaluation: Facts) -> list[str]:
    k = evaluation["k"]
    tuned = next(row for row in evaluation["models"] if row[columns.MODEL] == TUNED)
    return [
        f"**On interactions that its search never saw, {escaped(evaluation['verdict'])}.** Its MAP@{k} "
        f"is {fixed(tuned[columns.MAP])}, 95 % interval {_ends(tuned)}.",
        f"MAP@{k} in words: of each user an interaction is held out, which means hidden from the model, and "
        f"the model lists {k} items. A list counts 1 where the hidden item comes first, 1/2 where it comes "
        f"second, 1/3 where third, and 0 where it is not among the {k}. MAP@{k} is the mean over users.",
        "How to read an interval: had other users of the same shop been measured, the figure would most "
        "likely lie within it. Where the interval of a difference contains 0, chance alone may explain the "
        "difference.",
    ]


def _data(feed: Facts, counts: Facts, model: Facts) -> list[str]:
    by_count = sorted(feed["events"].items(), key=lambda entry: (-entry[1], entry[0]))
    events = ", ".join(f"{count:,} {shown(event)}" for event, count in by_count)
    files = shown(feed["first_file"])
    if feed["files"] > 1:
        files = f"{feed['files']:,} files, {files} to {shown(feed['last_file'])}"
    times = "without times"
    if feed["first_event"]:
        times = f"from {feed['first_event'][:10]} to {feed['last_event'][:10]} (UTC)"
    strengths = sorted(model["strengths"].items(), key=lambda entry: (entry[1], entry[0]))
    return _bullets(
        f"{files}: {feed['rows']:,} events, {times}: {events}.",
        f"Rows rejected because they are no events: {feed['rejected']:,}; rows ignored as configured: "
        f"{feed['ignored']:,}.",
        f"{counts['users']:,} users, {counts['items']:,} items, {counts['interactions']:,} interactions; "
        "an interaction is all that a user did with an item.",
        f"What an event counts: {escaped(told_values(dict(strengths)))}.",
        f"Events that an interaction must have to be held out: {_names(model['target_events'])}; events "
        f"after which the item is not recommended to the user any more: {_names(model['seen_events'])}.",
    )


def _quality(evaluation: Facts) -> list[str]:
    k = evaluation["k"]
    # What shows an effect is no rival.
    models = sorted(
        (row for row in evaluation["models"] if row[columns.MODEL] not in ABLATIONS),
        key=lambda row: (row[columns.MODEL] == LEAKING, -row[columns.MAP], row[columns.MODEL]),
    )
    header = [
        "",
        "what it recommends by",
        f"MAP@{k}",
        "95 % interval",
        "difference to this model, 95 % interval",
        f"NDCG@{k}",
        f"HitRate@{k}",
        f"Recall@{k}",
        "seeds",
        "seconds",
    ]
    table = [
        [
            row[columns.MODEL],
            _MEANINGS.get(row[columns.MODEL], ""),
            fixed(row[columns.MAP]),
            _ends(row),
            _difference(row),
            fixed(row[columns.NDCG]),
            fixed(row[columns.HIT_RATE]),
            fixed(row[columns.RECALL]),
            row[columns.SEEDS],
            _seconds(row),
        ]
        for row in models
    ]
    times = "once" if evaluation["seeds"] == 1 else f"{evaluation['seeds']} times, each with its own seed"
    return [
        table_lines(header, table),
        *_bullets(
            f"How it was measured: {escaped(evaluation['protocol'])}; {times}.",
            f"Not measured, or not every time: {escaped(evaluation['left_out'])}.",
            f"HitRate@{k} is the share of users with a held-out item in the list, Recall@{k} the share of "
            f"the held-out items that are in it, and NDCG@{k} like MAP@{k}, but kinder to later places.",
        ),
    ]


def _blend(evaluation: Facts, search: Facts, scorer: str) -> list[str]:
    """Whether the lists are better made by the blend, and what its terms are worth; nothing without one."""
    if not search["blend"]:
        return []
    found = blend_against_als(evaluation["models"], evaluation["k"])
    by_blend = scorer == BY_BLEND
    lists = "The lists are by the blend" if by_blend else "The lists are by ALS"
    if found is None:
        told = f"{lists}; how ALS and the blend compare could not be measured."
    elif by_blend:
        is_better = "is better" if found.is_better else "is not better"
        told = f"{lists}, which {is_better} than ALS by more than chance: {found.told}."
    elif found.is_better:
        told = (
            f"{lists}, although the blend is better by more than chance: {found.told}. With `scorer: blend` "
            "of `recommendations` it makes the lists; `scorer: auto` lets the evidence decide."
        )
    else:
        told = f"{lists}; the blend is not better than ALS by more than chance: {found.told}."
    worths = evaluation.get("blend_terms", [])
    if not worths:
        return [told]
    return [
        told,
        "What each group of the blend's terms is worth, on the same held-out interactions: without it, the "
        "weights of the others learned anew.",
        blend_terms_lines(worths, evaluation["k"]),
    ]


def _decisions(search: Facts, model: Facts) -> list[str]:
    chosen = search["chosen"]
    configuration = told_hyperparameters(Hyperparameters.from_mapping(model["hyperparameters"]))
    failed = f", of which {search['failed_trials']:,} failed" if search["failed_trials"] else ""
    equals = search["not_distinguishable"] - 1
    ends, agreement, blend = search["at_the_ends"], search["agreement"], search["blend"]
    # Cards from before there was a choice do not say what selected.
    selection = Selection.from_mapping(search.get(SELECTED_BY))
    besides = "" if selection.is_default else f"; MAP@10 {fixed(chosen[columns.MAP_AT_10])}"
    told_of_solver = "it was not compared with `implicit`"
    if agreement:
        told_of_solver = escaped(told_agreement(Agreement.from_mapping(agreement)))
    return _bullets(
        f"The configuration: {escaped(configuration)}; solver {shown(model['solver'])}, seed "
        f"{model['seed']}. The model was then trained on all interactions.",
        f"Against the release before: {escaped(search['decision'])}.",
        *(
            [f"Against simpler models, on the pairs of the search: {escaped(beside)}."]
            if (beside := search.get("beside_baselines"))
            else []
        ),
        f"The search: strategy {search['strategy']}, {search['trials']:,} trials{failed}; prefer "
        f"{search['prefer']}, switch {search['switch']}. Trials that are not distinguishable from the best: "
        f"{f'{equals:,}' if equals else 'none'}.",
        f"In the search the configuration had {selection.name} {fixed(chosen[selection.column])} +- "
        f"{fixed(chosen[selection.error_column])} (standard error){besides}. It was chosen by this figure, "
        "so the one above is the one to report.",
        f"Better values may lie beyond the ends of what was tried. There {escaped(ends)}."
        if ends
        else "The chosen values lie at no end of what was tried.",
        f"The solver: {told_of_solver}.",
        *([f"The blend: {escaped(told_blend(Blend.from_mapping(blend)))}."] if blend else []),
    )


def _limits(evaluation: Facts) -> list[str]:
    rows = {row[columns.MODEL]: row for row in evaluation["models"]}
    tuned, popularity = rows[TUNED], rows.get(POPULARITY, {})
    return [
        *_bullets(
            f"Coverage: in the lists of the evaluation {_share(tuned[columns.COVERAGE])} of the items are "
            f"recommended to at least one user{_of_popularity(popularity.get(columns.COVERAGE))}; "
            f"{_share(tuned[columns.USERS_REACHED])} of the users get a full list.",
            "Popularity bias: on average, "
            f"{_share(tuned[columns.POPULARITY], 2)} of all users have interacted with a recommended item"
            f"{_of_popularity(popularity.get(columns.POPULARITY), 2)}.",
            f"Out of reach: of the held-out interactions {_share(evaluation['out_of_reach'])} have an item "
            "that nobody else has, or a user of whom nothing is left. No model that learns from "
            "interactions can rank them; they count as missed. What is new in the shop is not recommended "
            "before somebody interacts with it.",
            "The figures are of interactions of the past. What people do with recommendations that they "
            "see, only a test with people tells.",
        ),
        f"For whom and for what it works, MAP@{evaluation['k']} +- standard error. The head are the most "
        "popular items that together have half of all interactions, the tail are all others.",
        segments_markdown(evaluation["segments"]),
    ]


def _of_popularity(value: float | None, decimals: int = 1) -> str:
    return "" if value is None else f" ({_share(value, decimals)} by popularity)"


def _example_sections(examples: Sequence[Facts]) -> list[str]:
    sections = [
        "Users of different activity: what they did, with what weighs most in training first, beside what "
        "they get."
    ]
    for example in examples:
        sections.append(
            f"### User {shown(str(example['user']))}: {example['interactions']:,} "
            f"interaction{'' if example['interactions'] == 1 else 's'}, "
            f"{_told_activity(example['share'])}"
        )
        n_lines = max(len(example["did"]), len(example["gets"]))
        did, gets = ([*example[side], *([None] * (n_lines - len(example[side])))] for side in ("did", "gets"))
        lines = [
            [
                number,
                *(["", ""] if one is None else [one["item"], _told_events(one["events"])]),
                *(["", "", ""] if other is None else _told_recommendation(other)),
            ]
            for number, (one, other) in enumerate(zip(did, gets, strict=True), 1)
        ]
        sections.append(table_lines(["", "did", "events", "gets", "score", "from"], lines))
    return sections


def _told_activity(share: float) -> str:
    return "the most of all users" if share == 1 else f"more than about {100 * share:.0f} % of the users"


def _told_events(events: Mapping[str, int]) -> str:
    by_count = sorted(events.items(), key=lambda entry: (-entry[1], entry[0]))
    return ", ".join(f"{event} {count}" for event, count in by_count)


def _told_recommendation(row: Facts) -> list[Any]:
    return [row["item"], fixed(row["score"]), row["source"]]


def _bullets(*lines: str) -> list[str]:
    """One list."""
    return ["\n".join(f"- {line}" for line in lines)]


def _difference(row: Facts) -> str:
    """To the tuned model."""
    if row[columns.MODEL] == TUNED:
        return ""
    return interval(row[columns.TO_TUNED_LOW], row[columns.TO_TUNED_HIGH])


def _seconds(row: Facts) -> str:
    """Of training and lists; releases before there were any have none."""
    return f"{row[columns.SECONDS]:.1f}" if columns.SECONDS in row else ""


def _ends(row: Facts) -> str:
    return f"{fixed(row[columns.MAP_LOW])} to {fixed(row[columns.MAP_HIGH])}"


def _share(value: float | None, decimals: int = 1) -> str:
    return "an unknown share" if value is None else f"{100 * value:.{decimals}f} %"


def _names(names: Sequence[str]) -> str:
    return ", ".join(shown(name) for name in names)


def with_decision(text: str, reasons: Sequence[str], facts: Facts) -> str:
    """The card of a release: it says why it was released, and how the runs before it went.

    Args:
        text: of the card.
        reasons: for the release.
        facts: of the card; of its pictures `history` belongs here.
    """
    parts = [text.rstrip(), "## Released because", *_bullets(*reasons), *_pictures(facts, "history")]
    return "\n\n".join(parts) + "\n"
