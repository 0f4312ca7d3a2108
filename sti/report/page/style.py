"""How the page looks: one column, cards, the colours of the drawings, light and dark. Pure."""

from __future__ import annotations

from sti.report.svg.canvas import COLOURS

WIDE, NARROW = 760.0, 320.0
"""Pixels of drawings: each is drawn for both, and a page shows the one that fits."""
_USED = ("paper", "ink", "muted", "grid", "ground", "blue")


def rules() -> str:
    """The style sheet."""
    light, dark = (";".join(f"--{name}:{COLOURS[name][mode]}" for name in _USED) for mode in (0, 1))
    return (
        f":root{{color-scheme:light dark;{light}}}\n"
        f"@media (prefers-color-scheme:dark){{:root{{{dark}}}}}\n{_RULES}"
    )


_RULES = """\
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0;background:var(--ground);color:var(--ink);overflow-wrap:anywhere;
font:1rem/1.55 system-ui,'Segoe UI',Roboto,Helvetica,Arial,sans-serif}
main{max-width:52rem;margin:0 auto;padding:1.5rem 1rem 3rem}
header,footer{padding:0 .25rem}
h1{margin:0;font-size:1.6rem;line-height:1.25}
h2{margin:0 0 .5rem;font-size:1.15rem;line-height:1.3}
p{margin:.5rem 0;max-width:42rem}
header p,footer,small,figcaption,.note{color:var(--muted);font-size:.9rem}
section{margin:1rem 0;padding:1.1rem 1.25rem;background:var(--paper);
border:1px solid var(--grid);border-radius:.75rem}
figure{margin:.75rem 0 .25rem}
figure svg{display:block}
.narrow{display:none}
.tiles{display:grid;grid-template-columns:repeat(3,1fr);gap:.6rem;
margin:.9rem 0 .4rem}
.tiles div{padding:.6rem .75rem;background:var(--ground);border-radius:.5rem}
.tiles dt{color:var(--muted);font-size:.82rem}
.tiles dd{margin:0;overflow-wrap:normal}
.tiles b{display:block;font-size:1.2rem;line-height:1.35}
.tiles small{display:block;line-height:1.35;font-size:.8rem}
.scroll{overflow-x:auto;margin:.75rem 0;
background:linear-gradient(to right,var(--paper) 40%,transparent) left/2.5rem 100% no-repeat local,
linear-gradient(to left,var(--paper) 40%,transparent) right/2.5rem 100% no-repeat local,
linear-gradient(to right,var(--grid),transparent) left/.8rem 100% no-repeat scroll,
linear-gradient(to left,var(--grid),transparent) right/.8rem 100% no-repeat scroll}
.scroll:focus-visible,summary:focus-visible{outline:2px solid var(--blue);outline-offset:2px}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums;
overflow-wrap:normal;min-width:100%}
th,td{padding:.3rem .6rem;text-align:right;white-space:nowrap;border-bottom:1px solid var(--grid)}
th:first-child{text-align:left;padding-left:0}
td:last-child,th:last-child{padding-right:0}
thead th{color:var(--muted);font-weight:500;white-space:normal;vertical-align:bottom;
min-width:4rem}
tbody th{font-weight:400}
tbody tr:last-child>*{border-bottom:0}
details{margin:.6rem 0 0}
summary{cursor:pointer;color:var(--blue)}
code{font:.88em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;background:var(--ground);
padding:.1em .3em;border-radius:.25em}
pre{margin:.5rem 0;padding:.2rem 0}
pre code{white-space:pre;padding:.3em .5em}
.facts{display:grid;grid-template-columns:max-content 1fr;gap:.25rem 1rem;margin:.5rem 0}
.facts dt{color:var(--muted)}
.facts dd{margin:0}
@media (max-width:52rem){.wide{display:none}.narrow{display:block;max-width:30rem}
.narrow svg{width:100%}}
@media (max-width:30rem){main{padding:1rem .5rem 2rem}section{padding:.9rem .7rem}
h1{font-size:1.35rem}.tiles{grid-template-columns:1fr 1fr}
table{font-size:.85rem}th,td{padding:.3rem .4rem}
.facts{grid-template-columns:1fr;gap:0}.facts dd{margin:0 0 .4rem}}
@media print{section{break-inside:avoid}}
"""
