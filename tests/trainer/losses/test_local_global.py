"""Local-global self-distillation: its closed form, where gradients go, and batches without images."""

import pytest
import torch

from xvlm2vec.trainer.losses import LocalGlobalLoss


def test_each_crop_is_compared_with_its_own_image():
    whole = torch.tensor([[3.0, 0.0], [0.0, 2.0]], requires_grad=True)
    crop = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.6, 0.8], [0.0, -1.0]], requires_grad=True)
    inputs = {"query": torch.randn(3, 2), "crop": crop, "whole_image": whole}
    loss = LocalGlobalLoss()(**inputs, image_of_crop=torch.tensor([0, 0, 1, 1]))
    assert loss.item() == pytest.approx((0 + 0.4 + 0.2 + 2) / 4)
    loss.backward()
    assert whole.grad is None
    assert crop.grad.abs().sum(dim=1).gt(1e-6).tolist() == [False, True, True, False]


def test_a_batch_without_images_adds_nothing():
    query = torch.randn(3, 2, requires_grad=True)
    loss = LocalGlobalLoss()(query=query)
    loss.backward()
    assert loss.item() == 0
    assert not query.grad.any()
    with pytest.raises(ValueError, match="needs whole_image and image_of_crop"):
        LocalGlobalLoss()(query=query, crop=query)
