"""The seam between the graph and whoever computes it.

From tables and hyperparameters to the ranks of the held-out interactions, and to factor tables: an engine
needs no more, and how it represents a matrix or resumes a fit is its own business.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import pyarrow as pa

from recsys_pipeline.core.baseline_tuning import Baseline, BaselineResult
from recsys_pipeline.core.beyond_accuracy import BeyondAccuracy
from recsys_pipeline.core.blending import FittedBlend
from recsys_pipeline.core.course import Course
from recsys_pipeline.core.distribution import Distribution, Frequencies
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.evaluation import HeldOutRanks
from recsys_pipeline.core.factors import FactorTables, Rows
from recsys_pipeline.core.holdout import Weights
from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.interactions import Datasets, Fading, Mappings, Tables
from recsys_pipeline.core.item_graph import GraphFilter
from recsys_pipeline.core.metrics import Scores
from recsys_pipeline.core.model import Model
from recsys_pipeline.core.offer import Offer
from recsys_pipeline.core.results import Winner
from recsys_pipeline.core.scale import Scale, Weighting
from recsys_pipeline.core.search import TrialResult
from recsys_pipeline.core.selecting import MAP_AT_10, Selection
from recsys_pipeline.core.solver import Solver
from recsys_pipeline.core.splitting import HoldOutMethod
from recsys_pipeline.core.strengths import EventRules

if TYPE_CHECKING:
    import pyarrow.dataset as ds

# What an earlier search has finished of some trials.
Finished = Callable[[Iterable[Hyperparameters]], Iterable[TrialResult]]


class Window(NamedTuple):
    """The events that count, by their times.

    Attributes:
        first: earliest time at which an event counts.
        latest: time of the latest event.
        n_events: that count.
        n_left_out: that are older.
    """

    first: datetime
    latest: datetime
    n_events: int
    n_left_out: int


class StrengthsFacts(NamedTuple):
    """What the strengths are like.

    Attributes:
        n_interactions: of all users.
        per_user: how many users have so many interactions.
        per_item: how many items do.
        strength: of an interaction.
    """

    n_interactions: int
    per_user: Frequencies
    per_item: Frequencies
    strength: Distribution


class Matrix(NamedTuple):
    """The interactions as coordinates, and what they are like.

    Attributes:
        tables: of `bm25_matrix`: pairs, users, items; those that are streams are read in this order.
        n_users: rows.
        n_items: columns.
        n_interactions: cells that are filled.
        n_not_positive: weights at or below 0.
        strength: of an interaction.
        weight: of an interaction.
    """

    tables: dict[str, Rows]
    n_users: int
    n_items: int
    n_interactions: int
    n_not_positive: int
    strength: Distribution
    weight: Distribution


class HoldOutPlan(NamedTuple):
    """What is to be held out.

    Attributes:
        method: by a hash or by time; a file is `given`.
        seed: of the first split; that of the next is one more, and so on.
        min_interactions: a user with fewer stays whole in training.
        max_users: of so many users at most, drawn by a hash; 0 takes all.
        n_splits: how often it is held out anew.
        given: instead, these interactions, by raw ids.
        never: rows of a `leave_one_out_split` that are not held out here; None for none.
        told: what the table says of itself; `keep_other_events` among it.
    """

    method: HoldOutMethod
    seed: int
    min_interactions: int
    max_users: int
    n_splits: int
    given: pa.Table | None
    told: Mapping[str, Any]
    never: pa.Table | None = None


class NothingToHoldOutError(InputError):
    """No user has enough interactions and among them one that may be held out."""

    def __init__(self, min_interactions: int, most: int, target_events: Sequence[str]) -> None:
        """`most` interactions has the user with the most."""
        super().__init__(
            f"no user has {min_interactions} interactions or more (the most is {most}) and among them one "
            f"with an event to hold out ({', '.join(target_events)}), so that nothing can score the search. "
            "Bring more feedback, or lower min_interactions of leave_one_out_split."
        )


class HeldOut(NamedTuple):
    """What is held out, and what that leaves.

    Attributes:
        table: `leave_one_out_split`.
        n_users: rows of the matrix.
        n_interactions: in it.
        n_splits: in the table.
        n_training: interactions that the first split leaves for training.
        n_whole: users of whom nothing is held out.
        n_unseen: held-out interactions of items that their training does not have.
        unknown: rows of `users` and of `items` that the feedback does not have.
    """

    table: pa.Table
    n_users: int
    n_interactions: int
    n_splits: int
    n_training: int
    n_whole: int
    n_unseen: int
    unknown: Mapping[str, int]


class Refitted(NamedTuple):
    """The model, and what it is like.

    Attributes:
        factors: of the model.
        interactions: what it carries along, as `core.model.Contents.to_table`.
        n_users: rows of the matrix.
        n_items: columns.
        n_interactions: in it.
        n_events: that these are made of.
        train: the scores on its own training data, nothing filtered.
        n_scored: of so many users.
        user_lengths: of the vectors of the users.
        item_lengths: of those of the items.
    """

    factors: FactorTables
    interactions: Rows
    n_users: int
    n_items: int
    n_interactions: int
    n_events: int
    train: Scores
    n_scored: int
    user_lengths: Distribution
    item_lengths: Distribution


class SearchMethod(Enum):
    """How the lists of the grid are searched."""

    grid = "grid"
    halving = "halving"
    random = "random"
    around = "around"


class SearchPlan(NamedTuple):
    """What a search is asked to do.

    Attributes:
        trials: the configurations to try; of a search in rounds its first round.
        mappings: strengths of the events that the trials name.
        solver: by name, one of the engine's.
        seed: of the random starts.
        method: halving stops fits early, all others train every trial to its end.
        course: what a search in rounds goes on with; None where all trials are known beforehand.
        most_steps: how often at most it goes on after its first round.
        first_rung: iterations before halving compares for the first time.
        workers: fits side by side; 0 takes what the machine offers.
        most_silent_seconds: how long a worker may say nothing before its first answer.
        memory_limit: GB for all fits together; 0 takes a share of what the machine has.
        incumbent: one of the trials, which halving never stops; None for no such trial.
        blend: whether a blend of the winner is fitted when all trials are there.
        graph: the item graph that a blend may have as a term; None for a blend without.
        weights: from which interactions BM25 takes idf and lengths.
        selection: what the trials are compared by.
        half_lives: in days, by which the events fade in some trials.
    """

    trials: Sequence[Hyperparameters]
    mappings: Mappings
    solver: str
    seed: int
    method: SearchMethod
    course: Course | None
    most_steps: int
    first_rung: int
    workers: int
    most_silent_seconds: float
    memory_limit: float = 0.0
    incumbent: Hyperparameters | None = None
    blend: bool = False
    graph: GraphFilter | None = None
    weights: Weights = Weights.training
    selection: Selection = MAP_AT_10
    half_lives: Sequence[float] = ()

    @property
    def fading(self) -> Fading:
        """The mappings as they are and by each half-life."""
        return Fading.of(self.mappings, self.half_lives)


class Memory(NamedTuple):
    """What memory allows.

    Attributes:
        told: the limit, what data and fits take, and what follows, for people.
        enough: whether it is enough for one fit at least, as far as that can be estimated.
    """

    told: str
    enough: bool


class EvaluationPlan(NamedTuple):
    """What an evaluation is asked to do.

    Attributes:
        winner: what is evaluated.
        models: by number of the split, the models to measure, by the names in `core.evaluation`; one that
            says nothing on this data is passed over, and the blend, where the winner has one, comes with the
            tuned model, as do those without some of its terms that are asked for.
        k: length of the lists.
        seed: of the random starts of the first split; that of the next is one more, and so on.
        baselines: by the same names, the configurations of those that are baselines.
        mappings: strengths of the events that these name.
        unknown_to_training: rows of a `leave_one_out_split` that are not ranked, but that training must not
            know either.
        workers: models side by side; 0 takes what the machine offers.
        most_silent_seconds: how long a worker may say nothing.
        memory_limit: in GB, for this process and its workers; 0 for the default.
    """

    winner: Winner
    models: Sequence[Sequence[str]]
    k: int
    seed: int
    baselines: Mapping[str, Baseline]
    mappings: Mappings
    unknown_to_training: pa.Table | None
    workers: int
    most_silent_seconds: float
    memory_limit: float = 0.0


class Evaluated(NamedTuple):
    """What came of an evaluation.

    Attributes:
        ranks: the held-out interactions and where each model ranked them.
        lists: by model, what its lists are like, where it has any.
        failures: by model, why it could not be measured.
        seconds: by model, wall seconds of training and lists, the mean over the splits.
        head: interactions of an item from which on it is of the head, see `core.evaluation.segments`.
    """

    ranks: HeldOutRanks
    lists: Mapping[str, BeyondAccuracy]
    failures: Mapping[str, str]
    seconds: Mapping[str, float]
    head: int


class BaselinePlan(NamedTuple):
    """Which baselines are to be measured.

    Attributes:
        baselines: the configurations to try.
        mappings: strengths of the events that they name.
        most_items_of_ease: above, EASE is not measured.
        most_interactions: above, what is fitted to all interactions is not measured.
        max_users: rank only what is held out of so many users, drawn by a hash; 0 takes all.
        workers: side by side; 0 takes what the machine offers.
        most_silent_seconds: how long a worker may say nothing.
        memory_limit: in GB, for this process and its workers; 0 for the default.
        selection: what the configurations are compared by.
    """

    baselines: Sequence[Baseline]
    mappings: Mappings
    most_items_of_ease: int
    most_interactions: int
    max_users: int
    workers: int
    most_silent_seconds: float
    memory_limit: float = 0.0
    selection: Selection = MAP_AT_10


class ExportPlan(NamedTuple):
    """How lists are to be made for everybody.

    Attributes:
        n: length of the lists.
        blend: score by the blend that the search has fitted, in place of the factors alone.
        memory_limit: in GB; 0 for the default.
        graph: list similar items by the item graph, in place of the cosine of their factors.
    """

    n: int
    blend: bool = False
    memory_limit: float = 0.0
    graph: bool = False


class PreparedSearch(Protocol):
    """A search whose data is ready."""

    @property
    def content(self) -> Mapping[str, str]:
        """By name of a mapping, a digest of the data that the scores of its trials depend on."""
        ...

    @property
    def memory(self) -> Memory:
        """How much of it there is, and what that decided."""
        ...

    @property
    def workers(self) -> int:
        """Fits side by side."""
        ...

    def run(self, finished: Finished, remember: Callable[[TrialResult], None]) -> Iterator[TrialResult]:
        """The result of each trial as it comes; one that fails is a result without scores.

        Args:
            finished: knows results that are not computed again, with ranks that reach as far as the plan's
                selection; asked before each round of trials.
            remember: told every result that was computed, those that are no trial of the plan too.
        """
        ...

    def fit_blend(self, hyperparameters: Hyperparameters) -> FittedBlend | None:
        """The blend with the ALS scores of these hyperparameters, learned from all splits.

        None where no held-out item is within its reach.
        """
        ...

    def reference(self, hyperparameters: Hyperparameters) -> TrialResult | None:
        """These hyperparameters as `implicit` trains them on the CPU; a fit that fails is without scores.

        None where they are beyond `implicit`, or `implicit` is the solver.
        """
        ...


# Rows with what else is to be said of them, as JSON.
Noted = tuple[pa.RecordBatch, Mapping[str, Any]]


class Engine(Protocol):
    """Who computes."""

    def each(self, work: Callable[[str], Iterable[Noted]], parts: Sequence[str]) -> Iterator[Iterable[Noted]]:
        """What the work makes of each part, in their order; side by side where that helps.

        Args:
            work: knows a part by its name; it may be done in another process, and more than once.
            parts: such as files.

        Raises:
            InputError: that of the work.
        """
        ...

    def strengths(
        self, raw_feedback: "ds.Dataset", rules: EventRules, most_bytes: int
    ) -> pa.RecordBatchReader:
        """The rows of `feedback_strengths`: one an interaction of a user and an item.

        Args:
            raw_feedback: columns UserID, ProductCode, Event and, optionally, Timestamp.
            rules: what the events mean; a window and half-lives count back from the latest event.
            most_bytes: memory that this process should use.

        Returns:
            UserID, ProductCode, strength (float64), where given Timestamp and target_timestamp (the latest of
            all and of the target events), target and excluded (bool), the count of each event (int32), and of
            each half-life what is left of each event (float64, see `core.strengths.faded_strengths`), sorted
            by user, then item: integers by value, strings by their bytes.

        Raises:
            InputError: an event has no strength; a window or a half-life is asked for and there are no times;
                while it is read: there is too little memory.
        """
        ...

    def window(self, raw_feedback: "ds.Dataset", window_days: float, most_bytes: int) -> Window:
        """What a window of so many days, above 0, takes in; events need times, `most_bytes` as above."""
        ...

    def events_of_days(self, raw_feedback: "ds.Dataset") -> dict[str, dict[date, int]]:
        """By kind of event, the number of events of each day, UTC; nothing where events have no times."""
        ...

    def strengths_facts(self, feedback_strengths: "ds.Dataset") -> StrengthsFacts:
        """What `feedback_strengths` is like."""
        ...

    def matrix(self, feedback_strengths: "ds.Dataset", k1: float, b: float) -> Matrix:
        """The tables of `bm25_matrix`, with the weight of one K1 and B.

        Items are the documents and users the terms; ids are indexed in their order, see
        `core.indexing.index_ids`.
        """
        ...

    def hold_out(self, bm25_matrix: Tables | Datasets, plan: HoldOutPlan) -> HeldOut:
        """Which interaction of each eligible user is held out; see `core.splitting.leave_one_out`.

        Raises:
            NothingToHoldOutError: there is none.
            InputError: `last` is asked for without times, or an event that stays in training would exclude
                the held-out item from recommendation.
        """
        ...

    def nearest_solvable(self, solver: Solver, trial: Hyperparameters) -> Hyperparameters:
        """The trial with those values replaced that the solver cannot train."""
        ...

    def scales(
        self, bm25_matrix: Tables | Datasets, mappings: Mappings, weightings: Iterable[Weighting]
    ) -> Mapping[Weighting, Scale]:
        """The size of the data under each weighting.

        Raises:
            InputError: a mapping names events that the feedback does not have, or leaves nothing.
        """
        ...

    def search(
        self, bm25_matrix: Tables | Datasets, leave_one_out_split: pa.Table, plan: SearchPlan
    ) -> PreparedSearch:
        """Get ready to rank the held-out interactions by every trial.

        Raises:
            InputError: the plan asks for what the data or the solver does not have.
        """
        ...

    def baselines(
        self,
        bm25_matrix: Tables | Datasets,
        leave_one_out_split: pa.Table,
        plan: BaselinePlan,
        report: Callable[[str], None],
    ) -> list[BaselineResult]:
        """Make every baseline of what each split leaves, and rank what it holds out.

        Args:
            bm25_matrix: all interactions.
            leave_one_out_split: the pairs by which the search chooses too.
            plan: what to measure.
            report: told what is being done.

        Returns:
            A result for each configuration, in the given order; then one for each family that is not measured
            on this data, which says why.

        Raises:
            InputError: the plan names events that the data does not have.
        """
        ...

    def refit(self, bm25_matrix: Tables | Datasets, winner: Winner) -> Refitted:
        """Train the winning configuration on all interactions.

        Raises:
            FloatingPointError: the fit diverged.
        """
        ...

    def evaluate(
        self,
        bm25_matrix: Tables | Datasets,
        held_out: pa.Table,
        plan: EvaluationPlan,
        report: Callable[[str], None],
    ) -> Evaluated:
        """Train the winner and others on what each split leaves, and rank what it holds out.

        Args:
            bm25_matrix: all interactions.
            held_out: as `leave_one_out_split`, a split a seed.
            plan: what to measure.
            report: told how far it is.

        Raises:
            RuntimeError: the winner itself could not be measured.
        """
        ...

    def recommendations(self, model: Model, offer: Offer, plan: ExportPlan) -> pa.RecordBatchReader:
        """The rows of `recommendations`: the best items of every user, filled up with popular ones.

        Raises:
            InputError: the plan asks for a blend that the model does not have.
            FloatingPointError: a factor is NaN or infinite.
        """
        ...

    def similar_items(self, model: Model, offer: Offer, plan: ExportPlan) -> pa.RecordBatchReader:
        """The rows of `similar_items`: of every item those most like it.

        By the cosine of factors every item that has any has a list, by the item graph every item that shares
        a user with another.

        Raises:
            InputError: the plan asks for an item graph that the model does not have.
            FloatingPointError: a factor is NaN or infinite.
        """
        ...
