"""What is imported before the page is there, in processes of their own."""

from __future__ import annotations

import subprocess
import sys

WITHOUT_STUBS = """
import ast, inspect
getfile, parsed = inspect.getfile, []
ast.get_source_segment = lambda source, node: parsed.append(node.name)
from app.server.gradio_import import import_gradio
import_gradio()
import gradio as gr
assert not parsed, parsed
assert inspect.getfile is getfile and inspect.getfile(gr.HTML).endswith("html.py")
with gr.Blocks() as page:
    gr.Button("Go").click(len, gr.Textbox(), gr.Number())
assert [each["targets"][0][1] for each in page.get_config_file()["dependencies"]] == ["click"]
"""
SLOW = """
import sys
import app.server.annotate, app.server.app, app.ui.page
print([name for name in ("datasets", "evalica", "peft", "sacrebleu", "scipy.stats", "trl") if name in sys.modules])
"""


def output_of(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout


def test_gradio_is_imported_without_its_stubs() -> None:
    output_of(WITHOUT_STUBS)


def test_the_page_needs_no_slow_library_that_only_some_of_its_actions_need() -> None:
    assert output_of(SLOW) == "[]\n"
