"""What must not leave this machine, and the names that a repository may hold."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from xvlm2vec.hub import scan
from xvlm2vec.hub.scan import ScanError, check_name, scan_folder

# Put together here, so that no scanner takes this file for one with secrets.
SECRETS = {
    "a Hugging Face token": "hf_" + "aB3" * 11,
    "an AWS access key": "AKIA" + "ABCDEFGH12345678",
    "a GitHub token": "ghp_" + "a1B2" * 9,
    "a Slack token": "xoxb-" + "123456789012-abc",
    "an API key": "sk-" + "proj-" + "a1B2" * 10,
    "a Google API key": "AIza" + "a1B2c" * 7,
    "a private key": "-----BEGIN RSA " + "PRIVATE KEY-----",
    "a password in an address": "https://me:" + "secret" + "@example.org/x",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    (tmp_path / "README.md").write_text("hf_hub_download, sk-learn, https://example.org:8080/a@b", encoding="utf-8")
    (tmp_path / "sub" / "model.safetensors").write_bytes(b"\0weights")
    return tmp_path


def test_a_clean_folder_is_listed(folder: Path) -> None:
    found = [(content.name, content.size) for content in scan_folder(folder, {"your token": ""})]
    assert found == [("README.md", 55), ("sub/model.safetensors", 8)]


@pytest.mark.parametrize(("what", "secret"), SECRETS.items())
def test_secrets_are_found_and_not_repeated(folder: Path, what: str, secret: str) -> None:
    (folder / "sub" / "config.json").write_text(f'{{"key": "{secret}"}}', encoding="utf-8")
    with pytest.raises(ScanError, match=rf"sub/config\.json holds {what}") as caught:
        scan_folder(folder)
    assert secret not in str(caught.value)


def test_a_secret_between_two_blocks_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "_BLOCK", 100)
    (folder / "notes.txt").write_text("x" * 90 + " " + SECRETS["a Hugging Face token"], encoding="utf-8")
    with pytest.raises(ScanError, match=r"notes\.txt holds a Hugging Face token"):
        scan_folder(folder)


def test_private_strings_are_found(folder: Path) -> None:
    (folder / "notes.txt").write_text("the word is open-sesame", encoding="utf-8")
    with pytest.raises(ScanError, match=r"notes\.txt holds your token") as caught:
        scan_folder(folder, {"your token": "open-sesame"})
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize("kind", ["text", "list", "structure", "column"])
def test_secrets_in_the_texts_of_a_table_are_found(folder: Path, kind: str) -> None:
    """Tables are compressed, so a search of their bytes would find nothing."""
    secret = SECRETS["a Hugging Face token"]
    values = {"text": secret, "list": ["a", secret], "structure": {"path": secret, "bytes": b"x"}, "column": 1}
    table = pa.table({secret if kind == "column" else "x": [values[kind]] * 3, "image": [b"x" * 100] * 3})
    pq.write_table(table, folder / "rows.parquet", compression="zstd")
    with pytest.raises(ScanError, match=r"rows\.parquet holds a Hugging Face token") as caught:
        scan_folder(folder)
    assert secret not in str(caught.value)


def test_secrets_in_what_is_written_about_weights_are_found(folder: Path) -> None:
    save_file({"a": torch.ones(2)}, folder / "x.safetensors", metadata={"made by": SECRETS["a GitHub token"]})
    with pytest.raises(ScanError, match=r"x\.safetensors holds a GitHub token"):
        scan_folder(folder)


def test_tables_without_secrets_pass_and_damaged_ones_do_not(folder: Path) -> None:
    pq.write_table(pa.table({"texts": [["ein Hund", None], None], "n": [1, 2]}), folder / "rows.parquet")
    assert len(scan_folder(folder)) == 3
    (folder / "rows.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(ScanError, match=r"rows\.parquet is no parquet file"):
        scan_folder(folder)


@pytest.mark.parametrize(
    "name", ["training_args.bin", "optimizer.pt", "sub/x.pkl", "vectors.npy", "WEIGHTS.BIN", "__0_0.distcp"]
)
def test_no_pickle_leaves(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"x")
    with pytest.raises(ScanError, match="may run code when it is loaded"):
        scan_folder(folder)


@pytest.mark.parametrize("protocol", [2, 4, "torch"])
def test_a_pickle_under_another_name_is_found(folder: Path, protocol: int | str) -> None:
    path = folder / "weights.dat"
    if protocol == "torch":
        torch.save({"a": torch.ones(2)}, path)
    else:
        path.write_bytes(pickle.dumps({"a": 1}, protocol=protocol))
    with pytest.raises(ScanError, match=r"weights\.dat is a pickle under another name"):
        scan_folder(folder)
    path.unlink()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "an archive is no pickle")
    assert len(scan_folder(folder)) == 3


def test_sizes_are_checked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "empty.safetensors").write_bytes(b"")
    with pytest.raises(ScanError, match=r"empty\.safetensors is empty"):
        scan_folder(folder)
    (folder / "empty.safetensors").unlink()
    monkeypatch.setattr(scan, "LARGEST_OTHER", 50)
    with pytest.raises(ScanError, match=r"README\.md has 55 bytes, more than 50"):
        scan_folder(folder)


def test_links_and_too_many_files_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "outside").symlink_to("/etc/hostname")
    with pytest.raises(ScanError, match="outside is a link"):
        scan_folder(folder)
    (folder / "outside").unlink()
    monkeypatch.setattr(scan, "MOST_FILES", 1)
    with pytest.raises(ScanError, match="2 files, more than 1"):
        scan_folder(folder)


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "C:\\x", "a\\..\\x", "..", "", ".git/config", "a\nb"])
def test_names_that_lead_out_are_refused(name: str) -> None:
    with pytest.raises(ScanError, match="no name for a file"):
        check_name(name)


@pytest.mark.parametrize("name", ["README.md", "a/b/c.parquet", "..hidden", "t2i/zh-Hant.parquet", "ünïcode"])
def test_plain_names_are_taken(name: str) -> None:
    check_name(name)
