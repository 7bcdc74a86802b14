#!/usr/bin/env bash
# A SigLIP text has one vector alone and another beside a longer text in sentence-transformers: the library pads to the
# longest of the batch, and SigLIP pools the last place, whatever stands there. Padding to the 64 places of its training,
# saved as processing_kwargs, cures it. Met by who indexes captions with SigLIP through sentence-transformers.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
env/bin/pip install --quiet --disable-pip-version-check transformers==5.23.0 sentence-transformers==6.2.0 pillow==12.1.0
cat > run.py <<'PY'
import sentence_transformers, torch, transformers
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, SiglipConfig, SiglipImageProcessorPil, SiglipModel, SiglipProcessor

transformers.logging.set_verbosity_error()
words = ["<pad>", "</s>", "<unk>", "a", "red", "bicycle", "and", "many", "other", "things", "in", "the", "old", "town"]
tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
                               padding_side="right", model_input_names=["input_ids"])
sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
torch.manual_seed(0)
model = SiglipModel(SiglipConfig(text_config={**sizes, "vocab_size": len(words), "max_position_embeddings": 64},
                                 vision_config={**sizes, "image_size": 16, "patch_size": 8}))
with torch.no_grad():
    for weight in model.parameters():
        if weight.ndim > 1:
            weight.normal_(0, weight.flatten(1).shape[1] ** -0.5)
model.save_pretrained("siglip")
images = SiglipImageProcessorPil(size={"height": 16, "width": 16})
SiglipProcessor(images, fast).save_pretrained("siglip")


def cosine(embedder):
    text, longer = "a red bicycle", "a red bicycle and many other things in the old town"
    alone, beside = embedder.encode([text])[0], embedder.encode([text, longer])[0]
    return float(torch.nn.functional.cosine_similarity(torch.tensor(alone), torch.tensor(beside), dim=0))


embedder = SentenceTransformer("siglip", device="cpu")
as_it_is = cosine(embedder)
embedder[0].processing_kwargs = {"text": {"padding": "max_length", "max_length": 64, "truncation": True}}
padded = cosine(embedder)
print("transformers", transformers.__version__, "sentence-transformers", sentence_transformers.__version__)
print(f"one text alone and beside a longer one, cosine of its two vectors: {as_it_is:.3f}")
print(f"the same, every text padded to 64 places: {padded:.6f}")
assert as_it_is < 0.9 and padded > 0.999999, "the behaviour has changed"
PY
env/bin/python run.py
