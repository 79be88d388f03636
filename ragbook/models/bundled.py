"""The readers that ship with the package, and readers from the hub in their place.

The bundled files hold only what training changed, in bfloat16; the rest comes from the embedded
encoder. `weights/weights.json` lists each file's size and SHA-256; a file that does not match its
SHA-256 is refused.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertLMHeadModel, EncoderDecoderModel

from ragbook.errors import InputError
from ragbook.files import file_records, sha256_of_file, write_json
from ragbook.models.embedded import minilm_model
from ragbook.models.filling import NONE, fill
from ragbook.models.model_files import refusing, settings_of, tensors_in
from ragbook.models.span import SpanScorer

WEIGHTS = Path(__file__).parent / "weights"
BUNDLED = "bundled"


DECODER_LAYERS = 2
OF_ENCODER = r"bert\.embeddings\.word_embeddings\.weight|cls\.predictions\.decoder\.(weight|bias)"
"""The tensors of the decoder that are the encoder's, or repeated under another name."""
OF_EMBEDDED = r"bert\..*|cls\.predictions\.decoder\.(weight|bias)"
"""The tensors of the language model that may be as the embedded encoder has them."""


def new_reader_model() -> Any:
    """The bundled reader before training, an `EncoderDecoderModel`.

    Its encoder is the embedded one, its decoder is new.

    The decoder's input and output layers use the encoder's word embeddings, which stay frozen. So
    it can read and write names that no training question asked for.
    """
    encoder = minilm_model()
    shape = encoder.config
    config = BertConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        num_attention_heads=shape.num_attention_heads,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=DECODER_LAYERS,
        max_position_embeddings=64,
        type_vocab_size=1,
        is_decoder=True,
        add_cross_attention=True,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    decoder = BertLMHeadModel(config)
    words = encoder.embeddings.word_embeddings
    decoder.bert.embeddings.word_embeddings = words
    decoder.cls.predictions.decoder.weight = words.weight
    model = EncoderDecoderModel(encoder=encoder, decoder=decoder)
    model.config.decoder_start_token_id = 101  # [CLS]
    model.config.eos_token_id = 102  # [SEP]
    model.config.pad_token_id = 0
    return model


@cache
def manifest(folder: Path = WEIGHTS) -> dict[str, Any]:
    """The content of `weights.json`: files with hashes, and the settings tuned on the dev split.

    Raises
    ------
    InputError: there is no such file, or it is damaged.
    """
    path = folder / "weights.json"
    if not path.is_file():
        raise InputError(f"the weights are missing ({path}); {_again(folder)}")
    found = settings_of(str(folder), path)
    files = found.get("files")
    if not isinstance(files, dict) or not all(
        isinstance(record, dict) and isinstance(record.get("sha256"), str)
        for record in files.values()
    ):
        raise InputError(
            f"{path} is damaged (it lists no files with their hashes); {_again(folder)}"
        )
    return found


def _again(folder: Path) -> str:
    """How the files of a folder come back."""
    return "reinstall ragbook" if folder == WEIGHTS else "restore it or train the readers again"


def write_manifest(folder: Path, **settings: Any) -> None:
    """Write `weights.json`: the folder's files with sizes and hashes, and the given settings."""
    files = file_records(folder, sorted(path.name for path in folder.glob("*.safetensors")))
    write_json(folder / "weights.json", {"files": files, **settings})
    manifest.cache_clear()


def tensors(name: str, folder: Path = WEIGHTS) -> dict[str, torch.Tensor]:
    """The tensors of one bundled file, float32, its hash checked.

    Raises
    ------
    InputError: the file is missing, is not the one that `weights.json` lists, or holds no tensors.
    """
    path, listed = folder / name, manifest(folder)["files"].get(name)
    if listed is None or not path.is_file() or sha256_of_file(path) != listed["sha256"]:
        raise InputError(f"{path} is missing or damaged; {_again(folder)}")
    if not tensors_in(str(folder), path):
        raise InputError(f"{path} holds no tensors; {_again(folder)}")
    with refusing(lambda said: f"{path} is damaged ({said}); {_again(folder)}"):
        return {key: value.float() for key, value in load_file(str(path)).items()}


def length_penalties(name: str, shared: bool = False) -> dict[str, float]:
    """The length penalty of each method's beam search that was chosen on dev questions, by method;
    empty where none was.

    Parameters
    ----------
    name: a reader's; see `weights_folder`.
    shared: those of methods that all use the shared reader as it is, instead of those of methods
        that use what they trained.
    """
    folder = weights_folder(name)
    found = manifest(folder) if folder else {}
    return found.get("length_penalty", {}).get("shared" if shared else "own", {})


def weights_folder(name: str) -> Path | None:
    """The folder of the bundled readers or of readers trained with this package; None for any other
    name."""
    folder = WEIGHTS if name == BUNDLED else Path(name)
    return folder if name == BUNDLED or (folder / "weights.json").is_file() else None


def reader_model(folder: Path = WEIGHTS) -> Any:
    """The seq2seq reader's `EncoderDecoderModel`, float32; each call returns a new one."""
    model = new_reader_model()
    fill(model.get_encoder(), tensors("encoder.safetensors", folder))
    fill(model.decoder, tensors("decoder.safetensors", folder), OF_ENCODER)
    return model


def span_scorer(hidden: int, folder: Path = WEIGHTS) -> SpanScorer:
    """REALM's span scorer, float32; each call returns a new one."""
    scorer = SpanScorer(hidden)
    fill(scorer, tensors("span.safetensors", folder), NONE)
    return scorer
