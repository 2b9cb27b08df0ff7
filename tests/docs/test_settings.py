# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""docs/settings.md says what the settings classes say."""

from __future__ import annotations

import importlib.util
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_page_is_what_the_classes_say() -> None:
    path = PAGE.with_name("make_settings.py")
    spec = importlib.util.spec_from_file_location("make_settings", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert PAGE.read_text("utf-8") == module.page(), "run python docs/make_settings.py"
    for title, kind in module.SECTIONS:
        for name, field in kind.model_fields.items():
            assert field.description, f"{title}: {name} has no description"
