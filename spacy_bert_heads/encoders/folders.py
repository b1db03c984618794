"""What makes a folder one of an encoder. (Imported without torch.)"""

from pathlib import Path


def is_encoder_folder(folder: Path) -> bool:
    """RETURNS (bool): Whether there is an encoder in a folder, as far as its files' names tell."""
    return (folder / "config.json").is_file() and (folder / "tokenizer_config.json").is_file()
