"""Both parts come through: a GGUF file's logits, another library's features, in a model that everything here takes."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image

pytestmark = pytest.mark.vision  # the tower is timm's, which imports torchvision
SIDE = 64  # of the tiny tower's images


def test_both_sides_are_those_of_their_parts(checkpoint, language, eyes):
    from transformers import AutoModelForImageTextToText

    from xvlm2vec.real_story.language_model import largest_difference

    folder, differences, tokenizer = checkpoint
    assert set(differences) == {"logits", "features"}
    assert max(differences.values()) < 1e-5
    whole = AutoModelForImageTextToText.from_pretrained(folder).eval()
    assert largest_difference(whole, language, tokenizer) < 1e-5
    pixels = torch.rand(2, 3, SIDE, SIDE)
    with torch.no_grad():
        features = whole.model.vision_tower(pixels).last_hidden_state
        torch.testing.assert_close(features, eyes[0].forward_features(pixels), atol=1e-5, rtol=1e-4)
    text = whole.config.text_config
    assert not text.name_or_path
    assert not hasattr(text, "quantization_config")


def test_weights_of_another_shape_are_refused(eyes):
    from xvlm2vec.real_story.tower import make_tower

    weights = dict(enumerate(eyes[0].state_dict().values()))
    with pytest.raises(ValueError, match=r"the weight 0 \(1,\) does not fit"):
        make_tower({**weights, 0: torch.zeros(1)}, "test_efficientnet")
    with pytest.raises(ValueError, match="weights do not fit the"):
        make_tower(dict(list(weights.items())[:-4]), "test_efficientnet")


def test_it_embeds_and_training_moves_no_statistics_of_its_tower(checkpoint):
    from xvlm2vec.modeling.modeling_xvlm2vec import XVLM2VecModel

    model = XVLM2VecModel.from_backbone(checkpoint[0])
    shades = [Image.new("RGB", (40, 90), (shade, 30, 200 - shade)) for shade in (10, 180)]
    vectors = np.asarray(model.encode(images=shades))
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-4
    before = copy.deepcopy(model.backbone.vision_tower.state_dict())
    model.train()
    model.backbone.vision_tower(torch.rand(3, 3, SIDE, SIDE))
    model.eval()
    after = model.backbone.vision_tower.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    np.testing.assert_allclose(np.asarray(model.encode(images=shades[1:]))[0], vectors[1], atol=1e-6)
