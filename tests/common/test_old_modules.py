"""Names under which the documents of the release before showed modules."""

from __future__ import annotations

import importlib
import sys

import pytest

from xvlm2vec.common.old_modules import MOVED


@pytest.mark.parametrize(("old", "new"), MOVED.items())
def test_an_old_name_leads_to_the_module_and_warns(old: str, new: str) -> None:
    module = importlib.import_module(new)
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=f"{old} is {new} now"):
        assert importlib.import_module(old) is module
    assert importlib.import_module(new) is module
    assert module.__name__ == new, "the module keeps its own name"


def test_a_name_that_never_was_is_no_module() -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("xvlm2vec.trainer.nothing")
