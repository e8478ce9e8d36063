"""Tiny random SmolVLM2 models of transformers, with their own processors."""

import json
import pathlib
from typing import Any

import tokenizers
import torch
import transformers
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers.models.smolvlm import processing_smolvlm

from oracles import randomise, texts

SIDE, PATCH, FACTOR = 64, 8, 4
ROWS = (SIDE // PATCH // FACTOR) ** 2
# The first resize, and the second.
_SETTINGS = {"size": {"longest_edge": 96}, "max_image_size": {"longest_edge": SIDE}}
IMAGE, FAKE, GLOBAL = "<image>", "<fake_token_around_image>", "<global-img>"
END = "<end_of_utterance>"
_NAMED = {
    "image_token": IMAGE,
    "fake_image_token": FAKE,
    "global_image_token": GLOBAL,
    "end_of_utterance_token": END,
}
SENTENCES = (
    *texts.SENTENCES,
    "User: You are provided the following series of twenty-one frames from a 0:01:10 "
    "[H:MM:SS] video.\n\nFrame from 00:59:\nFrame from 01:00:\n\n",
    "Assistant: it rains\nSystem: user\n",
)


def tokenizer() -> Any:
    """Returns one as of SmolLM2: bytes, digits one by one, nothing in front."""
    trained = tokenizers.Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    trained.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    trained.train_from_iterator(SENTENCES, trainer)
    trained.add_special_tokens([GLOBAL, FAKE, IMAGE, END])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=trained,
        bos_token="<|im_start|>",
        eos_token=END,
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        extra_special_tokens=_NAMED,
        model_max_length=8192,
    )


TOKENIZER = tokenizer()
IMAGE_TOKEN = TOKENIZER.convert_tokens_to_ids(IMAGE)


def make_model(*, kv_heads: int = 2, tied: bool = False, seed: int = 0):
    """Returns a model with scaled-up weights, random norms and random biases."""
    torch.manual_seed(seed)
    config = transformers.SmolVLMConfig(
        vision_config=dict(
            model_type="smolvlm_vision",
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=SIDE,
            patch_size=PATCH,
        ),
        text_config=dict(
            model_type="llama",
            vocab_size=len(TOKENIZER) + 3,
            hidden_size=48,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=kv_heads,
            max_position_embeddings=512,
            rms_norm_eps=1e-5,
            rope_parameters={"rope_type": "default", "rope_theta": 1e5},
            eos_token_id=TOKENIZER.eos_token_id,
        ),
        image_token_id=IMAGE_TOKEN,
        scale_factor=FACTOR,
        tie_word_embeddings=tied,
    )
    model = transformers.SmolVLMForConditionalGeneration(config).eval()
    randomise(model)
    return model


def processor() -> transformers.SmolVLMProcessor:
    """Returns the processor of such models."""
    return transformers.SmolVLMProcessor(
        transformers.SmolVLMImageProcessor(**_SETTINGS),
        TOKENIZER,
        transformers.SmolVLMVideoProcessor(**_SETTINGS),
        image_seq_len=ROWS,
        chat_template=processing_smolvlm.DEFAULT_CHAT_TEMPLATE,
    )


def pillow() -> transformers.SmolVLMImageProcessorPil:
    """Returns the processor of images in Pillow's form, which splits none."""
    return transformers.SmolVLMImageProcessorPil(**_SETTINGS, do_image_splitting=False)


def save(model, folder: pathlib.Path) -> pathlib.Path:
    """Writes a checkpoint as transformers 5 does it."""
    model.save_pretrained(folder)
    processor().save_pretrained(folder)
    return folder


def save_as_published(model, folder: pathlib.Path) -> pathlib.Path:
    """Writes the files of the hub: the settings of images say those of videos too."""
    model.save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    raw = json.loads((folder / "config.json").read_text())
    raw["text_config"] |= PUBLISHED_TEXT
    rope = raw["text_config"].pop("rope_parameters")
    raw["text_config"]["rope_theta"] = int(rope["rope_theta"])
    raw["vision_config"] |= PUBLISHED_VISION
    raw |= {"use_reentrant_checkpointing": False, "pad_token_id": 128002}
    raw |= {"vocab_size": raw["text_config"]["vocab_size"], "torch_dtype": "float32"}
    raw |= {"transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}}}
    settings = {
        **dict.fromkeys(("do_convert_rgb", "do_image_splitting", "do_pad"), True),
        **dict.fromkeys(("do_normalize", "do_rescale", "do_resize"), True),
        "image_mean": [0.5, 0.5, 0.5],
        "image_processor_type": "SmolVLMImageProcessor",
        "image_std": [0.5, 0.5, 0.5],
        "max_image_size": {"longest_edge": SIDE},
        "processor_class": "SmolVLMProcessor",
        "resample": 1,
        "rescale_factor": 0.00392156862745098,
        "size": {"longest_edge": 2 * SIDE},
        "video_sampling": {
            "fps": 1,
            "max_frames": 64,
            "video_size": {"longest_edge": SIDE},
        },
    }
    for name, content in (
        ("config.json", raw),
        ("preprocessor_config.json", settings),
        (
            "processor_config.json",
            {"image_seq_len": ROWS, "processor_class": "SmolVLMProcessor"},
        ),
    ):
        (folder / name).write_text(json.dumps(content))
    return folder


# Keys of the published `config.json` files that transformers does not write itself.
PUBLISHED_TEXT = {
    "_flash_attn_2_enabled": True,
    "_name_or_path": "None",
    "architectures": ["VLlama3ForCausalLM"],
    "is_llama_config": True,
    "neftune_noise_alpha": 0.0,
    "pad_token_id": 2,
    "perceiver_config": {"resampler_depth": 6, "use_resampler": False},
    "pixel_shuffle_factor": FACTOR,
    "qk_layer_norms": False,
    "rope_interleaved": False,
    "rope_scaling": None,
    "torch_dtype": "bfloat16",
    "transformers.js_config": {"kv_cache_dtype": {"fp16": "float16"}},
    "use_resampler": False,
}
PUBLISHED_VISION = {
    "max_image_size": {"longest_edge": SIDE},
    "size": {"longest_edge": 2 * SIDE},
    "tie_word_embeddings": False,
    "use_base_siglip": False,
}


def logits(model, ids, pixels) -> torch.Tensor:
    """Runs the torch model on the ids of a sequence and `pixels` (frames, 3, H, W)."""
    with torch.no_grad():
        ids = torch.tensor([list(ids)])
        return model(input_ids=ids, pixel_values=pixels[None]).logits[0]
