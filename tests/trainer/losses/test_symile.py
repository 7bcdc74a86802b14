"""Symile over image, English and translation: its closed forms, and what is never a negative."""

from math import exp, log

import pytest
import torch

from xvlm2vec.trainer.losses import SymileLoss


def views(*parts):
    return dict(zip(("teacher_image", "student_en", "student_lang"), parts, strict=True))


def test_equal_products_give_the_logarithm_of_the_candidates():
    same = torch.ones(5, 4)
    value = SymileLoss()(**views(same, same, same), row_of_pair=torch.arange(5))
    # Of each anchor's five mixed pairs, one is its own row's where both drawings agree on it.
    assert log(5) - 1e-6 <= value.item() <= log(6) + 1e-6


def test_rows_on_axes_of_their_own_are_told_apart():
    axes = torch.eye(6)
    value = SymileLoss(0.1)(**views(axes, axes, axes)).item()
    assert 0 < value <= log(1 + 6 * exp(-10)) + 1e-6


def test_translations_of_one_row_are_no_negatives_of_each_other():
    row = torch.nn.functional.normalize(torch.randn(1, 8), dim=1).expand(4, -1)
    value = SymileLoss()(**views(row, row, row), row_of_pair=torch.zeros(4, dtype=torch.long))
    assert value.item() == pytest.approx(0, abs=1e-6)


def test_pairs_without_an_image_are_left_out_and_the_teacher_gets_no_gradient():
    image, english, translated = (torch.randn(4, 8, requires_grad=True) for _ in range(3))
    loss = SymileLoss()(**views(image, english, translated), has_image=torch.tensor([True, False, True, True]))
    loss.backward()
    assert image.grad is None
    assert english.grad.abs().sum(dim=1).gt(0).tolist() == [True, False, True, True]
    assert translated.grad.abs().sum(dim=1).gt(0).tolist() == [True, False, True, True]
    nothing = SymileLoss()(**views(image, english, translated), has_image=torch.zeros(4, dtype=torch.bool))
    assert nothing.item() == 0
    nothing.backward()


def test_the_alone_translation_is_taken_where_it_is_given():
    parts = [torch.randn(3, 8) for _ in range(4)]
    torch.manual_seed(0)
    first = SymileLoss()(**views(*parts[:3]), student_lang_alone=parts[3])
    torch.manual_seed(0)
    assert torch.equal(first, SymileLoss()(**views(parts[0], parts[1], parts[3])))
