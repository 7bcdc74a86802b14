"""Which candidates are no negatives: the same content, and what a guide finds too near."""

import torch

from xvlm2vec.trainer.false_negatives import duplicates, guided


def test_equal_contents_are_no_negatives():
    contents = {
        "query": torch.tensor([1, 2, 3, 1]),
        "positive": torch.tensor([10, 11, 10, 12]),  # rows 0 and 2 look for the same, rows 0 and 3 ask the same
        "negative": torch.tensor([11, 13, 3]),  # the positive of row 1, something else, the query of row 2
    }
    found = duplicates(contents)
    no = found.no_negative.int().tolist()
    assert no == [
        [1, 0, 1, 1, 0, 0, 0],
        [0, 1, 0, 0, 1, 0, 0],
        [1, 0, 1, 0, 0, 0, 1],
        [1, 0, 0, 1, 0, 0, 0],
    ]
    assert found.no_query.int().tolist() == [[1, 0, 1, 1], [0, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1]]


def test_a_guide_leaves_out_what_is_nearer_than_the_positive_less_a_margin():
    angles = {"query": [0.0, 1.5], "positive": [0.3, 1.5], "negative": [0.2, 0.35, 0.8]}
    vectors = {
        side: torch.stack([torch.cos(torch.tensor(part)), torch.sin(torch.tensor(part))], dim=1) * 3
        for side, part in angles.items()
    }
    assert guided(vectors, 0.0).no_negative[0].tolist() == [False, False, True, False, False]
    assert guided(vectors, 0.05).no_negative[0].tolist() == [True, False, True, True, False]
    assert not guided(vectors, 0.0).no_query.any()
    assert guided(vectors, 1.0).no_query.all()
