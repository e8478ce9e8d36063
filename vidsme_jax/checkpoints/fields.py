"""Reads a checkpoint's `config.json` strictly: every key is handled or refused."""

from typing import Any

from vidsme_jax.checkpoints import content, quantised
from vidsme_jax.wording import nearest

_REQUIRED = object()
# Far above published models; larger values would take time and memory before a
# comparison with the tensors could refuse them.
MAX_SIZE, MAX_LAYERS = 1 << 24, 1 << 10
MAX_SIDE = 4096  # Pixels of a frame's side: memory grows by the square.
# A smaller epsilon is zero in float32: a row of zeros would become NaN.
EPS_RANGE = 1e-30, 1.0

# Keys that any Hugging Face config may carry and that no forward pass depends on.
BOOKKEEPING = frozenset(
    """_attn_implementation_autoset _name_or_path add_cross_attention architectures
    attention_dropout bad_words_ids begin_suppress_tokens bos_token_id
    chunk_size_feed_forward cross_attention_hidden_size decoder_start_token_id
    diversity_penalty do_sample dropout dtype early_stopping
    encoder_no_repeat_ngram_size eos_token_id exponential_decay_length_penalty
    finetuning_task forced_bos_token_id forced_eos_token_id id2label initializer_factor
    initializer_range is_decoder is_encoder_decoder label2id length_penalty max_length
    min_length no_repeat_ngram_size num_beam_groups num_beams num_return_sequences
    output_attentions output_hidden_states output_scores pad_token_id prefix
    pretraining_tp problem_type projection_dim pruned_heads remove_invalid_values
    repetition_penalty return_dict return_dict_in_generate sep_token_id suppress_tokens
    task_specific_params temperature tf_legacy_loss tie_encoder_decoder tokenizer_class
    top_k top_p torch_dtype torchscript transformers_version typical_p use_bfloat16
    use_cache""".split()
)


def by_key(reasons: dict[str, str]) -> dict[str, str]:
    """Returns {key: reason} of {reason: keys separated by blanks}."""
    return {key: reason for reason, keys in reasons.items() for key in keys.split()}


class Fields:
    """Reads one object of a config and records the keys that were read.

    A faulty key reads as its default or, without one, as None.
    """

    def __init__(self, raw: Any, where: str, problems: list[str]):
        """Starts with no key read.

        Args:
          raw: The object; anything else is a problem.
          where: Its place, such as "text_config", for messages.
          problems: Receives one sentence per problem; shared by several readers, so
            that one message lists all.
        """
        self.where = where
        self.problems = problems
        self._seen: set[str] = set()
        if not isinstance(raw, dict):
            problems.append(f"{where}: expected an object, found {content.shown(raw)}")
            raw = {}
        self.raw: dict[str, Any] = raw

    def take(
        self, key: str, kind: type | tuple[type, ...], default: Any = _REQUIRED
    ) -> Any:
        """Returns a value of one of some types, or the default if the key is absent."""
        self._seen.add(key)
        value = self.raw.get(key)
        fallback = None if default is _REQUIRED else default
        if value is None:
            if default is _REQUIRED:
                self.problems.append(f"{self.where}: {key} is missing")
            return fallback
        wrong_bool = isinstance(value, bool) and kind not in (bool, dict)
        if wrong_bool or not isinstance(value, kind):
            found = content.shown(value)
            self.problems.append(
                f"{self.where}: {key} is {found}, expected {_name(kind)}"
            )
            return fallback
        return value

    def size(self, key: str, default: Any = _REQUIRED, most: int | None = None) -> Any:
        """Returns a positive integer.

        Args:
          key: Of the value.
          default: If the key is absent.
          most: The largest; None: `MAX_LAYERS` for numbers of layers, else `MAX_SIZE`.
        """
        value = self.take(key, int, default)
        most = most or (MAX_LAYERS if "layers" in key else MAX_SIZE)
        if value is not None and not 1 <= value <= most:
            found = content.shown(value)
            self.problems.append(
                f"{self.where}: {key} is {found}, expected 1 to {most}"
            )
            return None if default is _REQUIRED else default
        return value

    def token(self, key: str, default: int) -> int:
        """Returns the id of a token."""
        value = self.take(key, int, default)
        if not 0 <= value <= MAX_SIZE:
            self.problems.append(
                f"{self.where}: {key} is {content.shown(value)}, expected the id of a "
                f"token, 0 to {MAX_SIZE}"
            )
            return default
        return value

    def number(self, key: str, default: float, low: float, high: float) -> float:
        """Returns a number from `low` to `high`, which are finite."""
        value = self.take(key, (int, float), default)
        if low <= value <= high:  # False for NaN.
            return float(value)
        found = content.shown(value)
        expected = f"a number from {low:g} to {high:g}"
        self.problems.append(f"{self.where}: {key} is {found}, expected {expected}")
        return default

    def expect(self, key: str, *allowed: Any) -> Any:
        """Returns a value that must be one of `allowed`; the default is the first."""
        self._seen.add(key)
        value = self.raw.get(key, allowed[0])
        if value not in allowed:
            self.problems.append(
                f"{self.where}: {key} is {content.shown(value)}; built for "
                f"{' or '.join(map(repr, dict.fromkeys(allowed)))}"
            )
            return allowed[0]
        return value

    def close(self, ignored: dict[str, str]) -> None:
        """Refuses every key that was not read and is neither bookkeeping nor ignored.

        Args:
          ignored: The reason for each key that is left out.
        """
        known = self._seen | BOOKKEEPING | set(ignored) | set(quantised.KEYS)
        unknown, read = sorted(set(self.raw) - known), sorted(self._seen)
        self.problems += [
            f"{self.where}: unknown key {content.shown(key)}{nearest(key, read)} "
            "(it may change the model, so it is not ignored)"
            for key in unknown[: content.SHOWN]
        ]
        if (rest := len(unknown) - content.SHOWN) > 0:
            self.problems.append(f"and {rest} more unknown keys in {self.where}")


def _name(kind: type | tuple[type, ...]) -> str:
    kinds = kind if isinstance(kind, tuple) else (kind,)
    return " or ".join(k.__name__ for k in kinds)
