"""The table of families: one entry each, no special cases elsewhere."""

from __future__ import annotations

from dataclasses import replace

from .family_entry import TYPES, Family

_QWEN = Family(
    template=False,
    image="<|vision_start|><|image_pad|><|vision_end|>",
    reserved=("<|vision_start|>", "<|image_pad|>", "<|video_pad|>", "<|vision_end|>"),
    marked=True,
    # M-RoPE is computed from the token types; Qwen2.5-VL falls back to one-dimensional positions without a word.
    required_with_images=(TYPES,),
    max_pixels=1280 * 28 * 28,
    max_aspect_ratio=200.0,
    causal=True,
)
_LLAVA = Family(template=False, image="<image>", after_images="\n", first_position=0, causal=True)
_IDEFICS = Family(
    template=False,
    image="<image>",
    reserved=("<fake_token_around_image>", "<global-img>"),
    first_position=0,
    row_inputs=("pixel_values", "pixel_attention_mask"),
    blank_is_padding=True,
    processor="Idefics3Processor",  # SmolVLM's own wants num2words, for videos only; the prompts are the same
    causal=True,
)

# Of these, the marks are what the authors' prompts hold; the checkpoint's own chat template goes first.
_VISION = replace(_QWEN, template=True, marked=None, max_pixels=None, max_aspect_ratio=None, required_with_images=())
_VISION_3D = replace(_VISION, required_with_images=(TYPES,))
_GLM = Family(image="<|begin_of_image|><|image|><|end_of_image|>", causal=True)
_GLM_3D = replace(_GLM, required_with_images=(TYPES,))
_IMAGE = Family(image="<image>", causal=True)
_IMAGE_LINE = Family(image="<image>", after_images="\n", causal=True)
_PLACEHOLDER = Family(image="<image_placeholder>", causal=True)
_PIXTRAL = Family(image="[IMG]", causal=True)
_GEMMA_4 = Family(image="<|image|>", required_with_images=(TYPES,), causal=True, image_layers="windows")
_MUSE = Family(image="<|patch|>", causal=True)
_MINICPM = Family(image="<|image_pad|>", images_of_one_row=True, causal=True)
_ERNIE = Family(image="<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>", required_with_images=(TYPES,), causal=True)
_ENCODER = "it embeds by its encoder, which reads in both directions"
_CAPTIONS = Family(refused="it writes captions of an image and embeds no text without one")

FAMILIES: dict[str, Family] = {
    "idefics3": _IDEFICS,
    "smolvlm": _IDEFICS,
    "qwen2_vl": _QWEN,
    # VLM2Vec was trained without the marks around an image, and M-RoPE, which looks for them, then counts tokens.
    "qwen2_vl-vlm2vec": replace(
        _QWEN, image="<|image_pad|>", after_images="\n", marked=False, first_position=0, required_with_images=()
    ),
    "qwen2_5_vl": _QWEN,
    "qwen3_vl": _QWEN,
    "qwen3_vl_moe": _QWEN,
    "llava_next": _LLAVA,
    "llava_onevision": Family(
        template=False,
        image="<image>",
        after_images="\n",
        reserved=("<video>",),
        first_position=0,
        row_inputs=("batch_num_images",),
        causal=True,
    ),
    "internvl": Family(
        template=False,
        image="<IMG_CONTEXT>",
        after_images="\n",
        reserved=("<img>", "</img>", "<IMG_CONTEXT>", "<video>"),
        first_position=0,
        causal=True,
    ),
    "gemma3": Family(
        template=False,
        image="<start_of_image>",
        reserved=("<image_soft_token>", "<end_of_image>"),
        first_position=0,
        # Images attend in both directions where the token types say so.
        required_with_images=("token_type_ids",),
        causal=True,
        image_layers="all",
    ),
    "paligemma": Family(
        template=False,
        image="<image>",
        before_text="{bos}",
        after_text="\n",
        first_position=1,
        # The whole prompt attends in both directions where the token types are 0.
        required=("token_type_ids",),
        not_causal="the whole prompt attends in both directions (a prefix language model)",
    ),
    # Texts only; their positions are counted from the first token, wherever padding stands.
    **dict.fromkeys(
        ("bert", "electra", "albert"), Family(first_position=0, not_causal="texts are read in both directions")
    ),
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2"), Family(first_position=0, causal=True)),
    # Positions are the backbone's own: it counts attended tokens by itself, and its RoPE wants to know row lengths.
    "phi3_v": Family(
        template=False,
        image="<|image|>",
        after_images="\n",
        reserved=("<|image_",),
        texts_by_processor=True,
        processor="Phi3VProcessor",
        causal=True,
    ),
    "aria": Family(image="<|img|>", causal=True),
    "aya_vision": _IMAGE,
    # Its processor ends rows with images in a separator.
    "chameleon": Family(image="<image>", after_text="{sep}", causal=True),
    "cohere2_vision": Family(image="<|IMG_PATCH|>", causal=True),
    "cohere_compass": Family(
        image="<|VISION_START|><|IMAGE_PAD|><|VISION_END|>", required_with_images=(TYPES,), causal=True
    ),
    "cosmos3_edge": _VISION_3D,
    "cosmos3_omni": _VISION_3D,
    "deepseek_ocr2": _IMAGE,
    "deepseek_vl": _PLACEHOLDER,
    "deepseek_vl_hybrid": _PLACEHOLDER,
    "dots3_note": Family(image="<|img|><|imgpad|><|endofimg|>", mixes="lengths"),
    "emu3": Family(image="<image>", mixes="shapes"),
    # Its experts take the mark behind an image for a part of it: a pack has it among the texts.
    "ernie4_5_vl_moe": replace(_ERNIE, causal=False),
    "exaone4_5": Family(image="<vision><|image_pad|></vision>", causal=True),
    "fast_vlm": _IMAGE_LINE,
    # Its processor writes the image first, and BOS and EOS around the text.
    "florence2": Family(image="", after_text="{eos}", most_images=1, padded_right=True, not_causal=_ENCODER),
    "fuyu": Family(image="", most_images=1),
    "gemma3n": Family(image="<image_soft_token>", causal=True),
    "gemma4": _GEMMA_4,
    "gemma4_unified": replace(_GEMMA_4, image_layers="any distance"),
    "glm46v": _GLM_3D,
    "glm4v": _GLM_3D,
    "glm4v_moe": _GLM_3D,
    "glm5_next": replace(_GLM, mixes="lengths", causal=False),  # ties of its sparse attention fall with the padding
    "glm_ocr": _GLM_3D,
    "glmga": _GLM_3D,
    "got_ocr2": Family(image="<img><imgpad></img>", flat_images=True),
    "granite4_vision": replace(_IMAGE_LINE, causal=False),  # packs do not know how it takes images
    "granite_docling": replace(
        _IDEFICS,
        template=True,
        first_position=None,
        blank_is_padding=False,
        processor=None,
        row_inputs=(),
    ),
    # Only its chat template writes BOS before images.
    "hunyuan_vl": Family(
        image="<hy_image_start><hy_image><hy_image_end>",
        before_images="{bos}",
        required_with_images=(TYPES,),
        mixes="rows",  # one of its positions counts the images of the whole batch
    ),
    "hyperclovax_vision_v2": _VISION,
    "idefics": Family(refused="it takes no row without an image"),
    "idefics2": replace(_IDEFICS, template=True, reserved=("<fake_token_around_image>",), processor=None),
    "inkling2": Family(image="<|unused_200054|>"),
    "inkling_mm_model": Family(image="<|content_image|><|unused_200054|>"),
    "janus": _PLACEHOLDER,
    "kimi_k25": Family(image="<|media_begin|>image<|media_content|><|media_pad|><|media_end|>", causal=True),
    "kosmos-2.5": Family(image="", most_images=1, padded_right=True),
    "lfm2_vl": Family(image="<image>", before_images="{bos}", causal=True),
    "lfm3_vl": replace(_VISION, images_in_dtype=True),
    "lighton_ocr": Family(image="<|image_pad|>", causal=True),
    "llama4": Family(image="<|image|>"),
    "llava": _IMAGE_LINE,
    "llava_next_video": _IMAGE_LINE,
    "minicpm_ocr": _MINICPM,
    "minicpmv4_6": _MINICPM,
    "minicpmv4_7": replace(_MINICPM, required_with_images=(TYPES,)),
    "minimax_m3_vl": Family(image="]<]image[>[", causal=True),
    "mistral3": _PIXTRAL,
    "mistral_large4": replace(_PIXTRAL, mixes="lengths", causal=False),
    # Tokens that see no image attend to all images of the batch alike, padding included.
    "mllama": Family(image="<|image|>", mixes="shapes"),
    # Its processor writes BOS before every row.
    "molmo2": Family(image="<|image|>", before_text="{bos}", required_with_images=(TYPES,)),
    "muse_glimmer": _MUSE,
    "muse_spark": _MUSE,
    "nemotron_h_omni": _IMAGE,
    "ovis2": _IMAGE,
    "paddleocr_vl": _ERNIE,
    "perception_lm": Family(image="<|image|>", mixes="shapes"),
    "qianfan_ocr": _IMAGE_LINE,
    "qwen2_5_omni_thinker": Family(image="<|vision_bos|><|IMAGE|><|vision_eos|>", causal=True),
    "qwen3_5": _VISION_3D,
    "qwen3_5_moe": _VISION_3D,
    "qwen3_omni_moe_thinker": _VISION,
    "qwen4_exp": replace(_VISION_3D, mixes="lengths", causal=False),
    "step3p7": Family(image="<im_patch>", causal=True),
    "t5gemma2": Family(image="<start_of_image>", not_causal=_ENCODER),
    "unlimited_ocr": replace(_IMAGE, images_in_dtype=True, causal=False),  # packs do not know how it takes images
    "video_llama_3": Family(image="<|image_pad|>", causal=True),
    # Packs do not know how it takes images.
    "video_llava": replace(_IMAGE_LINE, renamed={"pixel_values_images": "pixel_values"}, causal=False),
    "vipllava": _IMAGE_LINE,
    **dict.fromkeys(("blip", "blip-2", "instructblip", "instructblipvideo", "git", "kosmos-2"), _CAPTIONS),
    "pp_chart2table": Family(refused="transformers has only its generating model, no base model to take vectors from"),
    "mistral4": Family(refused="transformers has no processor for it; models around it are `mistral3`"),
}
