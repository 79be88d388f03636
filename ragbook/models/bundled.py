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

from ragbook import manifests
from ragbook.errors import InputError
from ragbook.files import file_records, sha256_of_file, write_whole
from ragbook.manifests import WeightsManifest
from ragbook.models.embedded import minilm_model
from ragbook.models.filling import NONE, below, fill, own_tensors
from ragbook.models.span import SpanScorer

WEIGHTS = Path(__file__).parent / "weights"
BUNDLED = "bundled"


DECODER_LAYERS = 2
OF_ENCODER = r"bert\.embeddings\.word_embeddings\.weight|cls\.predictions\.decoder\.(weight|bias)"
"""The tensors of the decoder that are the encoder's, or repeated under another name."""
REPEATED = r"cls\.predictions\.decoder\.(weight|bias)"
"""The tensors of the language model that are others of its tensors under another name."""


def new_reader_model() -> Any:
    """The bundled reader before training, an `EncoderDecoderModel`.

    Its encoder is the embedded one, its decoder is new.

    The decoder's input and output layers use the encoder's word embeddings, which stay frozen. So
    it can read and write names that no training question asked for.
    """
    from transformers import BertConfig, BertLMHeadModel, EncoderDecoderModel

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
    decoder.tie_weights()  # also where it is made without first values
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
    return manifests.read_whole(path, WeightsManifest, _again(folder))


def _again(folder: Path) -> str:
    """How the files of a folder come back."""
    return "reinstall ragbook" if folder == WEIGHTS else "restore it or train the readers again"


def write_manifest(folder: Path, **settings: Any) -> None:
    """Write `weights.json`: the folder's files with sizes and hashes, and the given settings."""
    files = file_records(folder, sorted(path.name for path in folder.glob("*.safetensors")))
    raw = manifests.serialize({"files": files, **settings})
    write_whole(folder / "weights.json", lambda file: file.write(raw))
    manifest.cache_clear()


def lists(name: str, folder: Path = WEIGHTS) -> bool:
    """Whether a folder's `weights.json` lists a file of this name.

    Raises
    ------
    InputError: the manifest is damaged, or does not list a file that is there: then others would be
        used in its place without a word.
    """
    if name in manifest(folder)["files"]:
        return True
    if (folder / name).exists():
        raise InputError(
            f"{folder / 'weights.json'} does not list {name}, which is there; remove that file if "
            f"it does not belong to the readers, otherwise {_again(folder)}"
        )
    return False


def tensors(name: str, folder: Path = WEIGHTS) -> dict[str, torch.Tensor]:
    """The tensors of one bundled file, float32, its size and hash checked.

    Raises
    ------
    InputError: the file is missing, is not the one that `weights.json` lists, or holds no tensors.
    """
    path, listed = folder / name, manifest(folder)["files"].get(name)
    if (
        listed is None
        or not path.is_file()
        or path.stat().st_size != listed["bytes"]
        or sha256_of_file(path) != listed["sha256"]
    ):
        raise InputError(f"{path} is missing or damaged; {_again(folder)}")
    return own_tensors(path, _again(folder))


def tuned_for_text() -> dict[str, float]:
    """`lam` and `temperature` of kNN-LM that were tuned with the bundled language model on text.

    Raises
    ------
    InputError: the bundled manifest is damaged or lacks them.
    """
    return _pair(_setting("perplexity"))


def tuned_for_answers(name: str = BUNDLED, adapted: bool = False) -> dict[str, float]:
    """`lam` and `temperature` of kNN-LM that were tuned on dev questions: those of a reader's
    folder where it has any, else the bundled ones.

    Parameters
    ----------
    name: a reader's; see `weights_folder`.
    adapted: with the language model that kNN-LM's own training changed, instead of the shared one.

    Raises
    ------
    InputError: a manifest is damaged, or the bundled one lacks them.
    """
    folder = weights_folder(name)
    found = manifest(folder).get("knn_lm") if folder else None
    return _pair((found or _setting("knn_lm"))["own" if adapted else "shared"])


def _setting(name: str) -> dict[str, Any]:
    """A setting of the bundled manifest."""
    found = manifest().get(name)
    if found is None:
        raise InputError(f"{WEIGHTS / 'weights.json'} lacks the settings {name}; {_again(WEIGHTS)}")
    return found


def _pair(found: dict[str, float]) -> dict[str, float]:
    return {"lam": found["lam"], "temperature": found["temperature"]}


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
    encoder = tensors("encoder.safetensors", folder)
    fill(model.get_encoder(), encoder, below(encoder))
    fill(model.decoder, tensors("decoder.safetensors", folder), OF_ENCODER)
    return model


def span_scorer(hidden: int, folder: Path = WEIGHTS) -> SpanScorer:
    """REALM's span scorer, float32; each call returns a new one."""
    scorer = SpanScorer(hidden)
    fill(scorer, tensors("span.safetensors", folder), NONE)
    return scorer
