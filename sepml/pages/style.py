"""The look of the pages: one style sheet, and one palette for it and for figures, light and dark as the reader's system is."""

from sepml.pages import read_template

PALETTES = {
    "light": {
        **{"page": "#ffffff", "panel": "#f5f7f9", "edge": "#d5dae0", "ink": "#1c2126", "soft": "#59626c"},
        **{"link": "#0b57a4", "warn": "#8f3200", "stop": "#b3261e"},
        **{"s0": "#0072b2", "s1": "#d55e00", "s2": "#009e73", "s3": "#1f252b", "s4": "#6a20c0", "s5": "#602000"},
    },
    "dark": {
        **{"page": "#14171a", "panel": "#1d2226", "edge": "#363d45", "ink": "#e6e9ec", "soft": "#a3adb8"},
        **{"link": "#7db8f5", "warn": "#ffb38a", "stop": "#ff8a80"},
        **{"s0": "#56b4e9", "s1": "#e69f00", "s2": "#009e73", "s3": "#ffffff", "s4": "#9a6cf5", "s5": "#e04020"},
    },
}
"""Names of colours and their values in either scheme; `s0` to `s5` are for series.

The first three are of M. Okabe and K. Ito, "Color Universal Design", 2008. The others were chosen so that any two differ for
people who do not see red, green or blue, and so that each stands out from the page.
"""
SERIES_COLOURS = 6


def page_style() -> str:
    """The style sheet of all pages."""
    dark = _variables("dark")
    colours = f":root{{{_variables('light')}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}"
    return f"{colours}\n{read_template('style.css')}"


def in_both_schemes(svg: str) -> str:
    """An SVG picture in colours of the light palette, which has those of the dark one where the reader prefers that."""
    style = f"svg{{{_variables('light')}}}@media (prefers-color-scheme:dark){{svg{{{_variables('dark')}}}}}"
    for name, colour in PALETTES["light"].items():
        svg = svg.replace(colour, f"var(--{name})")
    head, tag, rest = svg.partition("<svg")
    opening, end, content = rest.partition(">")
    return f"{head}{tag}{opening}{end}<style>{style}</style>{content}"


def _variables(scheme: str) -> str:
    return "".join(f"--{name}:{colour};" for name, colour in PALETTES[scheme].items())
