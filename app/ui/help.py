"""The help dialog: all keyboard shortcuts and the tour. static/js/help.js opens it."""

from __future__ import annotations

from html import escape

from app.ui.shortcuts import labelled, load_shortcuts

# where: [(keys, what they do)]
SHORTCUTS = {
    where: [(shortcut["shown"], shortcut["help"]) for shortcut in shortcuts if "help" in shortcut]
    for where, shortcuts in load_shortcuts().items()
}
# Without a key: Delete, so that no slip deletes; the forms of Copy as, to which Tab comes from Copy link.
SWITCH = (
    '<label class="switch"><input type="checkbox" role="switch" id="single-keys" checked>'
    "<span>Single-key shortcuts: letters, digits and ? work wherever you are not typing</span></label>"
)


def help_button() -> str:
    """Return the button that opens the help dialog."""
    return f'<button type="button" data-help="open">{labelled("Help", "help")}</button>'


def help_dialog() -> str:
    """Return the help dialog as HTML."""
    groups = "".join(
        f"<section><h3>{escape(where)}</h3><dl>"
        + "".join(f"<div><dt><kbd>{escape(keys)}</kbd></dt><dd>{escape(what)}</dd></div>" for keys, what in shortcuts)
        + "</dl></section>"
        for where, shortcuts in SHORTCUTS.items()
    )
    return (
        '<dialog id="help" aria-labelledby="help-title"><header><h2 id="help-title">Keyboard shortcuts</h2>'
        '<button type="button" data-help="tour">Start the tour</button>'
        '<button type="button" data-help="api">Use via API</button>'
        '<button type="button" data-help="close" autofocus>Close (Esc)</button></header>'
        f'{SWITCH}<div class="shortcuts">{groups}</div></dialog>'
    )
