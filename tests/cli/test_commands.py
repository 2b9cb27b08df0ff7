# SPDX-FileCopyrightText: The Picogram authors
# SPDX-License-Identifier: Apache-2.0
"""The command line's errors, one line each, and the commands besides encode and decode."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fake_codec import photo, pico, workplace

import picogram
from picogram.cli import batch
from picogram.cli.main import main, run

__all__ = ["workplace"]  # an autouse fixture, in force here because it is imported

# --- errors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["encode"],
        ["frobnicate"],
        ["encode", "a.png", "--bytes", "many"],
        ["encode", "a.png", "--quality", "101"],
        ["encode", "a.png", "--bytes", "9", "--bpp", "1"],
        ["encode", "a.png", "-o", ""],
        ["decode", "a.png", "--format", "tiff"],
        ["encode", "absent.png"],
        ["bench", "absent"],
        ["models", "pull", "absent"],
    ],
)
def test_usage_errors_are_one_line_and_exit_with_2(arguments: list[str], capsys: Any) -> None:
    photo("a.png")
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"error: .+ \[usage\]\n", err)


def test_damaged_files_are_named_by_slug(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.pico").write_bytes(pico("a.pico").read_bytes()[:7])
    Path("b.pico").write_bytes(b"no picogram")
    assert main(["decode", "a.pico", "b.pico"]) == 4
    assert main(["inspect", "a.pico"]) == 4
    assert capsys.readouterr().err.splitlines() == [
        "error: a.pico: the file has only 7 bytes [corrupt-bitstream]",
        "error: b.pico: the file does not start like a picogram [not-a-picogram]",
        "error: a.pico: the file has only 7 bytes [corrupt-bitstream]",
    ]


def test_line_breaks_in_messages_and_names_stay_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    photo("two\nlines\x1b[2J.png")
    assert main(["encode", "two\nlines\x1b[2J.png", "--bytes", "5"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: two?lines?[2J.png: no file of this picture?fits")


def test_bugs_are_one_line_too_unless_debugging(monkeypatch: Any, capsys: Any) -> None:
    def broken(data: bytes, *options: Any, **more: Any) -> None:
        raise ZeroDivisionError("division by zero")

    pico("a.pico")
    monkeypatch.setattr(picogram, "decode_detailed", broken)
    assert main(["decode", "a.pico"]) == 1
    assert "unexpected ZeroDivisionError: division by zero (PICOGRAM_DEBUG=1" in capsys.readouterr().err
    monkeypatch.setenv("PICOGRAM_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        main(["decode", "a.pico"])


def test_a_missing_torch_names_the_extra(monkeypatch: Any, capsys: Any) -> None:
    def no_torch(*args: Any, **options: Any) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    photo("a.png")
    monkeypatch.setattr(picogram, "encode_detailed", no_torch)
    assert main(["encode", "a.png"]) == 1
    assert 'pip install "picogram-codec[torch]"' in capsys.readouterr().err


def test_run_leaves_with_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["picogram", "encode", "absent.png"])
    with pytest.raises(SystemExit) as left:
        run()
    assert left.value.code == 2


# --- the other commands ----------------------------------------------------------------------------------


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"picogram {picogram.__version__}\n"
    assert main(["encode", "--help"]) == 0
    assert "--bpp" in capsys.readouterr().out
    assert main([]) == 2
    assert "inspect" in "".join(capsys.readouterr())


def test_inspect_prints_text_or_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    pico("a.pico")
    pico("b.pico")
    assert main(["inspect", "a.pico"]) == 0
    assert re.search(
        r"a\.pico\n +width +8\n +bpp +2\.0000\n +sections +latent 3, text 4\n", capsys.readouterr().out
    )
    assert main(["inspect", "--json", "a.pico", "b.pico"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["file"] for line in lines] == ["a.pico", "b.pico"]
    assert lines[0]["sections"] == {"latent": 3, "text": 4}


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, **members: Any) -> None:
    module = ModuleType(name)
    module.__dict__.update(members)
    monkeypatch.setitem(sys.modules, name, module)


def test_serve_passes_host_and_port(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []
    stand_in(monkeypatch, "picogram_gateway")
    stand_in(monkeypatch, "picogram_gateway.serve", main=lambda **options: calls.append(options))
    assert main(["serve", "--host", "0.0.0.0", "--port", "9000"]) == 0
    assert calls == [{"host": "0.0.0.0", "port": 9000, "redis": None}]


def test_serve_without_the_gateway_names_the_extra(monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setitem(sys.modules, "picogram_gateway.serve", None)
    monkeypatch.setitem(sys.modules, "picogram_gateway", None)
    assert main(["serve"]) == 1
    assert 'pip install "picogram-codec[local]"' in capsys.readouterr().err


def test_bench_passes_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []
    stand_in(monkeypatch, "picogram.bench.comparison", bench=lambda *options: calls.append(options))
    Path("set").mkdir()
    assert main(["bench", "set", "--out", "o", "--codecs", "jpeg, webp", "--limit", "3"]) == 0
    assert main(["bench", "set"]) == 0
    assert main(["bench", "set", "--bpps", "0.02,0.05", "--reuse", "old.json"]) == 0
    assert calls == [
        (Path("set"), Path("o"), ["jpeg", "webp"], 3, None, None, False, None),
        (Path("set"), Path("bench-results"), None, None, None, None, False, None),
        (Path("set"), Path("bench-results"), None, None, [0.02, 0.05], Path("old.json"), False, None),
    ]
    assert main(["bench", "set", "--bpps", "low"]) == 2


def test_models_are_listed_and_pulled(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from picogram.metrics import weights

    monkeypatch.setattr(weights, "pull", lambda name, progress: Path("cache") / name)
    monkeypatch.setattr(weights, "find", lambda: None)
    assert main(["models", "list"]) == 0
    assert re.search(r"^metrics +not pulled", capsys.readouterr().out, re.MULTILINE)
    assert main(["models", "pull", "metrics"]) == 0
    assert capsys.readouterr().out == "cache/metrics\n"


def test_a_terminal_gets_a_progress_bar_on_stderr_only(monkeypatch: Any, capsys: Any) -> None:
    for name in ("a.png", "b.png"):
        photo(name)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    assert main(["encode", "a.png", "b.png"]) == 0
    out, err = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()] == ["a.png", "b.png"]
    assert "encoding" in err


def test_starting_the_command_loads_no_heavy_module() -> None:
    heavy = ["torch", "matplotlib", "fastapi", "rich.progress", "picogram.latent", "picogram.bench"]
    code = f"import sys, picogram.cli.main; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_reader_that_goes_away_leaves_no_traceback(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "picogram.cli.main", "models", "list"]
    environment = os.environ | {"PICOGRAM_METRICS": str(tmp_path)}
    with subprocess.Popen(
        program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_undecodable_names_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    batch.say("caf\udce9.png")
    assert capsys.readouterr().out == "caf?.png\n"
