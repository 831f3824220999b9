"""Help: every keyboard shortcut and the tour, in one dialog. What opens it is in static/help.js."""

from __future__ import annotations

from html import escape

# where: [(keys, what they do)]
SHORTCUTS = {
    "Everywhere": [
        ("D", "Desk"),
        ("X", "Explore"),
        ("R", "Compare"),
        ("G", "Ratings"),
        ("?", "Help"),
        ("Ctrl+Enter", "Generate; on Compare, begin the comparison; on Explore, sample"),
        ("Esc", "Stop what is under way, or close what is open"),
    ],
    "Mixture": [
        ("E", "Even"),
        ("B", "Balance"),
        ("Ctrl+Z", "Undo"),
        ("Ctrl+⇧+Z", "Redo"),
        ("V", "Save and share"),
        ("Ctrl+S", "Save under a name"),
        ("Ctrl+O", "Load, where Save and share is open"),
        ("K", "Copy link, likewise"),
        ("O", "More"),
    ],
    "On a fader": [
        ("← →", "Move it"),
        ("S", "Solo"),
        ("M", "Mute"),
        ("L", "Lock"),
    ],
    "On a dot of the radar": [
        ("← →", "Ask for less or more of its reward"),
        ("Delete", "Clear target"),
    ],
    "Panels and ratings": [
        ("P", "Add panel"),
        ("⇧+P", "Remove the last panel"),
        ("T", "Trace"),
        ("1", "Left is better"),
        ("2", "Right is better"),
        ("3", "Tie"),
        ("4", "Both bad"),
    ],
    "Conversation": [
        ("5", "Reply to the left response"),
        ("6", "Reply to the right one; 7 and 8, to the third and fourth"),
        ("⇧+⌫", "Back"),
        ("⇧+N", "New conversation"),
    ],
    "In a response": [
        ("← →", "From token to token"),
        ("Enter", "What else could have been said there; again, into that drawer"),
        ("C", "Continue from there with these weights"),
    ],
    "Explore, Compare, Ratings": [
        ("← →", "In a figure: the efficient point with less or more of a reward"),
        ("↑ ↓", "In a figure: of another reward"),
        ("Enter", "In a figure: send the point's weights to the faders; in a field: Find weights, Add"),
        ("U", "Upload prompts"),
        ("C", "Resume a comparison"),
        ("← →", "In an open prompt: Previous, Next"),
        ("F", "Refresh the ratings"),
    ],
}
# Without a key: Delete, so that no slip deletes; the forms of Copy as, to which Tab comes from Copy link.
SWITCH = (
    '<label class="switch"><input type="checkbox" role="switch" id="single-keys" checked>'
    "<span>Single-key shortcuts: letters, digits and ? work wherever you are not typing</span></label>"
)


def help_button() -> str:
    """Return the button that opens the help."""
    return '<button type="button" data-help="open">Help (?)</button>'


def help_dialog() -> str:
    """Return the dialog that lists all shortcuts."""
    groups = "".join(
        f"<section><h3>{escape(where)}</h3><dl>"
        + "".join(f"<div><dt><kbd>{escape(keys)}</kbd></dt><dd>{escape(what)}</dd></div>" for keys, what in shortcuts)
        + "</dl></section>"
        for where, shortcuts in SHORTCUTS.items()
    )
    return (
        '<dialog id="help" aria-labelledby="help-title"><header><h2 id="help-title">Keyboard shortcuts</h2>'
        '<button type="button" data-help="tour">Start the tour</button>'
        '<button type="button" data-help="close" autofocus>Close (Esc)</button></header>'
        f'{SWITCH}<div class="shortcuts">{groups}</div></dialog>'
    )
