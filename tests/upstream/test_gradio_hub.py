"""What the Space's app relies on in gradio, beside its documented interface."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import ImageData
from gradio.processing_utils import async_move_files_to_cache

from xvlm2vec.hub import space_app


def refusal(call: Coroutine[Any, Any, Any]) -> str:
    """What gradio shows of a refused upload; empty if it was taken."""
    try:
        asyncio.run(call)
    except gr.Error as error:
        return str(error)
    return ""


def test_every_upload_passes_its_component_before_an_address_is_fetched() -> None:
    with gr.Blocks():
        upload = space_app.guarded(gr.Image())
    payload = {"path": "https://example.org/x.png", "meta": {"_type": "gradio.FileData"}}
    assert "fetches no addresses" in refusal(async_move_files_to_cache(payload, upload)), (
        "gradio no longer asks Image.async_move_resource_to_block_cache for what an upload names: hub/space_app.py has "
        "to refuse addresses in another place."
    )


def test_an_upload_is_read_by_the_preprocess_of_its_component(tmp_path: Path) -> None:
    with gr.Blocks() as page:
        upload = space_app.guarded(gr.Image())
        upload.upload(lambda image: None, upload)
    (tmp_path / "x.png").write_bytes(b"no image")
    inputs = [ImageData(path=str(tmp_path / "x.png")).model_dump()]
    assert "no image that can be read" in refusal(page.preprocess_data(page.fns[max(page.fns)], inputs, None)), (
        "gradio no longer calls Image.preprocess of the component that took an upload: hub/space_app.py has to limit "
        "uploads in another place."
    )
