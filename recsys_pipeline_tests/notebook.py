"""The notebook's procedure, plain and slow: the oracle for the search.

Two things differ from the notebook, because it is wrong there: the held-out interactions are given (its own
split ignores its seed), and both formulas of MAP@10 are computed.
"""

import numpy as np
from implicit.cpu.als import AlternatingLeastSquares
from implicit.nearest_neighbours import bm25_weight
from scipy.sparse import csr_matrix


def map_at_10(strengths, held_out, trial, seed, num_threads=1):
    """(textbook, notebook) MAP@10 of one trial.

    Args:
        strengths: users x items csr_matrix.
        held_out: {user index: item index}.
        trial: hyperparameters.
        seed: of ALS.
        num_threads: of ALS; the notebook takes all cores, 0.
    """
    weighted = csr_matrix(bm25_weight(strengths.T.tocsr(), K1=trial.bm25_K1, B=trial.bm25_B)).T.tocsr()
    mask = csr_matrix(
        (np.ones(len(held_out)), (list(held_out), list(held_out.values()))), shape=weighted.shape
    )
    train = (weighted - weighted.multiply(mask)).tocsr()
    train.eliminate_zeros()

    model = AlternatingLeastSquares(
        factors=trial.factors,
        regularization=trial.regularization,
        alpha=trial.alpha,
        iterations=trial.iterations,
        random_state=seed,
        num_threads=num_threads,
    )
    model.fit(train, show_progress=False)

    textbook, notebook = [], []
    for user, item in held_out.items():
        recommended, _ = model.recommend(user, train[user], N=10, filter_already_liked_items=True)
        n_hits, at_hits, at_all = 0, 0.0, 0.0
        for rank, candidate in enumerate(recommended, start=1):
            if candidate == item:
                n_hits += 1
                at_hits += n_hits / rank
            at_all += n_hits / rank
        textbook.append(at_hits)
        notebook.append(at_all)
    return np.mean(textbook), np.mean(notebook)
