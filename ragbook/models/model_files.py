"""What the files of a model must be before any library reads them.

Folders come from elsewhere, and the libraries that read them trust them: they raise errors of any
kind, wait at a pipe, follow the names of other files, and reserve as much memory as a configuration
asks for. So a folder is looked through first (`check_folder`), sizes are compared with what the
weights hold before a model is made (`check_size`), and whatever a library raises all the same is
said in one sentence (`refusing`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ragbook.errors import InputError
from ragbook.files import is_bare_name

WEIGHTS, SHARDS = "model.safetensors", "model.safetensors.index.json"
SENTENCEPIECE = ("spiece.model", "sentencepiece.bpe.model", "tokenizer.model", "spm.model")
"""Names of SentencePiece models, which a fast tokenizer is not read from."""
VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json")
"""Names of files that a fast tokenizer is read from."""

FLOATING = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
_COUNTS = re.compile(r"layer|block|expert|depth|stage|group", re.I)
_MOST_PARTS = 4096
_SPARE = 20_000_000
"""Numbers that a model may have beyond twice those in its files: poolers and tied matrices."""


def one_line(error: object, most: int = 200) -> str:
    """What an error says, in one line of at most `most` characters that can be printed anywhere."""
    said = " ".join(str(error).split()).encode("utf-8", "replace").decode()
    return said if len(said) <= most else said[: most - 1] + "…"


@contextmanager
def refusing(sentence: Callable[[str], str]) -> Iterator[None]:
    """Turns whatever a library raises within the block into an `InputError`.

    What the libraries raise on a damaged file is not documented and differs from version to version
    (`KeyError`, `AttributeError`, `ZeroDivisionError`, `MemoryError`, the tokenizers' own panics),
    so it cannot be listed.

    Parameters
    ----------
    sentence: gives the whole sentence for what the error says.
    """
    try:
        yield
    except InputError:
        raise
    except BaseException as error:
        # A panic of a library in Rust is no `Exception`.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        said = one_line(error)
        raise InputError(sentence(f"{type(error).__name__}: {said}")) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the bars and reports of transformers' loading; their important parts are checked here
    and reported in one sentence."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def settings_of(name: str, path: Path, kind: type = dict) -> Any:
    """What a file of settings says, as `json` gives it; an empty dictionary where there is no file.

    Parameters
    ----------
    kind: what the whole must be, `dict` or `list`.

    Raises
    ------
    InputError: it is not JSON, or not of that kind.
    """
    if not path.is_file():
        return {}
    try:
        settings = json.loads(path.read_bytes().decode())
        json.dumps(settings, ensure_ascii=False).encode()  # refuses halves of characters
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path} of {name} is damaged ({one_line(error)}); download it again"
        ) from None
    if not isinstance(settings, kind):
        wanted = "an object" if kind is dict else "a list"
        raise InputError(f"{path} of {name} is damaged (it is not {wanted}); download it again")
    return settings


def settings_files(folder: Path) -> list[Path]:
    """The files of settings in a folder of a model, by name."""
    # The list of its training data, which sentence-transformers wrote once, is none.
    return sorted(p for p in folder.glob("*config*.json") if p.name != "data_config.json")


def check_folder(name: str, folder: Path) -> None:
    """Look through the files that lie in a folder of a model.

    Links to files elsewhere are followed, for the hub's cache consists of them.

    Raises
    ------
    InputError: one is neither file nor folder (a pipe, a device, a link to nothing), a file of
        settings is damaged, or a list of shards names a file that is missing or elsewhere.
    """
    for path in sorted(folder.iterdir()):
        if not path.is_file() and not path.is_dir():
            raise InputError(f"{path} of {name} is neither a file nor a folder; download it again")
        if path.suffix in (".json", ".txt", ".model", ".safetensors") and path.is_dir():
            raise InputError(f"{path} of {name} is a folder and not a file; download it again")
    for path in settings_files(folder):
        settings_of(name, path)
    for file in ("special_tokens_map.json", "added_tokens.json", "vocab.json"):
        settings_of(name, folder / file)
    files = settings_of(name, folder / "tokenizer_config.json").get("fast_tokenizer_files", [])
    if not isinstance(files, list) or not all(
        isinstance(f, str) and is_bare_name(f) for f in files
    ):
        raise InputError(
            f"{folder / 'tokenizer_config.json'} of {name} names files outside its folder "
            "(fast_tokenizer_files); take them out"
        )


def stored_tensors(name: str, folder: Path) -> dict[str, tuple[list[int], str]]:
    """Shape and type of every tensor in a folder's safetensors, by the files' headers.

    Raises
    ------
    InputError: a file is missing or damaged, or a list of shards names one that lies elsewhere.
    """
    path = folder / WEIGHTS
    if path.is_file():  # as in transformers, before a list of shards
        return tensors_in(name, path)
    shards = settings_of(name, folder / SHARDS)
    files = shards.get("weight_map")
    if not isinstance(files, dict) or not files:
        raise InputError(f"{folder / SHARDS} of {name} lists no tensors; download it again")
    found: dict[str, tuple[list[int], str]] = {}
    for file in sorted({str(file) for file in files.values()}):
        if not is_bare_name(file) or not file.endswith(".safetensors"):
            raise InputError(
                f"{folder / SHARDS} of {name} names {file!r}, which is no safetensors file in its "
                "folder; download it again"
            )
        if not (folder / file).is_file():
            raise InputError(f"{name} lacks the file {file}; download it again")
        found |= tensors_in(name, folder / file)
    if absent := sorted(set(files) - set(found)):
        raise InputError(f"{name} lacks tensors of its model: {a_few(absent)}; download it again")
    return found


def tensors_in(name: str, path: Path) -> dict[str, tuple[list[int], str]]:
    """Shape and type of every tensor in one safetensors file, by its header."""
    from safetensors import safe_open

    with (
        refusing(lambda said: f"{path} of {name} is damaged ({said}); download it again"),
        safe_open(str(path), framework="pt") as file,
    ):
        parts = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118  # no mapping
        found = {key: (part.get_shape(), str(part.get_dtype())) for key, part in parts.items()}
    odd = sorted(
        key
        for key, (shape, kind) in found.items()
        # Masks and positions may be there as whole numbers (`attn.bias` of GPT-2 has four axes).
        if kind not in FLOATING
        and (key.endswith(".weight") or (key.endswith(".bias") and len(shape) == 1))
    )
    if odd:
        kinds = sorted({found[key][1] for key in odd})
        raise InputError(
            f"{name} holds weights that are no floating-point numbers ({', '.join(kinds)}): "
            f"{a_few(odd)}; name a model that is not quantised"
        )
    return found


def numbers_in(tensors: Mapping[str, tuple[list[int], str]]) -> int:
    """How many numbers the tensors of `stored_tensors` have together."""
    total = 0
    for shape, _ in tensors.values():
        count = 1
        for size in shape:
            count *= size
        total += count
    return total


def check_counts(name: str, settings: Any, tensors: int) -> None:
    """Refuse a configuration with more layers, experts and so on than there are tensors, before a
    library makes them one by one.

    Parameters
    ----------
    settings: what a configuration says, with its parts.
    tensors: how many tensors the model's files have.

    Raises
    ------
    InputError: a number is larger; the message names it.
    """
    most = max(tensors, _MOST_PARTS)
    stack = [settings]
    while stack:
        entries = stack.pop()
        for key, value in entries.items():
            if isinstance(value, dict):
                stack.append(value)
            elif isinstance(value, int) and value > most and _COUNTS.search(str(key)):
                raise InputError(
                    f"the configuration of {name} asks for {key} = {one_line(value, 20)}, and its "
                    f"files have {tensors} tensors; it is damaged: download it again"
                )


def check_size(
    name: str, tensors: Mapping[str, tuple[list[int], str]], make: Callable[[], Any]
) -> None:
    """Refuse a configuration of a model that is far larger than its files, before memory is
    reserved for it.

    Parameters
    ----------
    tensors: as of `stored_tensors`.
    make: makes the model; it is called where no memory is reserved.

    Raises
    ------
    InputError: the model is larger, or it cannot be made.
    """
    import torch

    with (
        refusing(lambda said: f"{name} has a config.json that describes no model ({said})"),
        torch.device("meta"),
    ):
        size = sum(parameter.numel() for parameter in make().parameters())
    stored = numbers_in(tensors)
    if size > 2 * stored + _SPARE:
        raise InputError(
            f"{name} has a config.json that describes a model of {size:,} numbers, and its files "
            f"hold {stored:,}; download it again"
        )


def check_numbers(name: str, model: Any) -> None:
    """Refuse weights that are infinite or not numbers.

    Raises
    ------
    InputError: some are; the message names their tensors.
    """
    import torch

    wrong = []
    for key, parameter in model.named_parameters():
        values = parameter.detach()
        if values.numel() and not torch.stack(values.aminmax()).isfinite().all():
            wrong.append(key)
    if wrong:
        raise InputError(
            f"{name} holds numbers that are infinite or none: {a_few(sorted(wrong))}; "
            "download it again"
        )


def tried(name: str, compute: Callable[[], Any]) -> None:
    """Compute something with a loaded model once: settings may be wrong that no file contradicts,
    such as the number of heads.

    Parameters
    ----------
    compute: gives a tensor or array of finite numbers.

    Raises
    ------
    InputError: it fails, or gives other numbers.
    """
    import torch

    with (
        refusing(lambda said: f"{name} loads, but it computes nothing ({said}); download it again"),
        torch.no_grad(),
    ):
        if not torch.as_tensor(compute()).isfinite().all():
            raise ValueError("its numbers are infinite or none")


def read_tokenizer(name: str, folder: Path | str, rows: int, **how: Any) -> Any:
    """A model's fast tokenizer.

    Parameters
    ----------
    folder: where it lies, or the name of a checkpoint of the hub.
    rows: how many word embeddings the model has.
    how: passed to `AutoTokenizer.from_pretrained`.

    Raises
    ------
    InputError: there is none, it is damaged, or it has token ids that the model does not have.
    """
    from transformers import AutoTokenizer

    place = Path(folder) / how.get("subfolder", "")
    if place.is_dir():
        check_folder(name, place)
        check_vocabulary(name, place)
        how["local_files_only"] = True
    with refusing(lambda said: f"the tokenizer of {name} does not load ({said}); save it again"):
        tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, **how)
        if not tokenizer.is_fast:
            raise InputError(_NOT_FAST.format(f"{name} has no fast tokenizer"))
        tokenizer("A word.", add_special_tokens=True)
        words = tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False)
        used = [*words.values(), *(id for id in tokenizer.all_special_ids if id is not None)]
        largest = max(used, default=-1)
    if not 0 <= largest < rows:
        raise InputError(
            f"the tokenizer of {name} has token ids up to {largest}, and its model has {rows} word "
            "embeddings; save the tokenizer that the model was trained with"
        )
    return tokenizer


_NOT_FAST = (
    "{}; with sentencepiece installed, write its tokenizer.json by AutoTokenizer's save_pretrained"
)


def check_vocabulary(name: str, folder: Path) -> None:
    """Refuse a folder without a tokenizer, or with one that only sentencepiece reads.

    Raises
    ------
    InputError: so it is; the message says what to do.
    """
    there = {file for file in (*SENTENCEPIECE, *VOCABULARIES) if (folder / file).is_file()}
    pieces = there & set(SENTENCEPIECE)
    if "tokenizer.json" not in there and pieces:
        raise InputError(
            _NOT_FAST.format(
                f"{name} has a SentencePiece model ({min(pieces)}) and no fast tokenizer"
            )
        )
    if not there:
        raise InputError(
            f"{name} has no tokenizer (none of {', '.join(VOCABULARIES)}); save the tokenizer "
            "that the model was trained with into the same folder"
        )


def a_few(names: list[str]) -> str:
    """The first three of some names, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(one_line(name) for name in names[:3]) + more
