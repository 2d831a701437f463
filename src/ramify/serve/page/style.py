"""How the page looks: the colours of the reports, the fonts of the machine, and room on a phone."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from ramify.serve.page.widgets import gradio

_TEXT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "Liberation Sans", "sans-serif")
_CODE = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "Liberation Mono", "monospace")
_BLUE = {
    "c50": "#eef5f9",
    "c100": "#d9e8f0",
    "c200": "#bcd4e2",
    "c300": "#93b9cf",
    "c400": "#5f97b7",
    "c500": "#3a7ea4",
    "c600": "#2a6f97",
    "c700": "#235c7d",
    "c800": "#1d4a65",
    "c900": "#183c52",
    "c950": "#0f2737",
}

CSS = """
.gradio-container{width:100%!important;max-width:84rem!important;margin:0 auto!important;--main:#2a6f97;--pale:#93b9cf;
--line:var(--border-color-primary);--soft:var(--body-text-color-subdued);--shade:var(--background-fill-secondary);
--good:#1b7a43;--bad:#b3381f}
.dark .gradio-container,.gradio-container.dark{--main:#5f97b7;--pale:#235c7d;--good:#5cb585;--bad:#e58a75}
#title{display:flex;align-items:baseline;gap:.7rem;padding:.2rem 0}
#title h1{font-size:1.25rem;margin:0;letter-spacing:-.01em}
#title span,.status{color:var(--soft);font-size:.875rem}
.status{min-height:1.35rem;margin:0;overflow-wrap:anywhere}
.status.failed{color:var(--bad)}
.html-container{padding:0!important}
.block:has(>.html-container .status:empty){display:none}
#chat-log{height:52vh;min-height:14rem;overflow-y:auto;flex-direction:column-reverse;flex-wrap:nowrap;gap:0;
border:1px solid var(--line);border-radius:6px;padding:.7rem}
#chat-log>*{flex:none;margin-bottom:auto;gap:0}
.turn{display:flex;margin:.35rem 0}
.turn.user{justify-content:flex-end}
.turn .text{max-width:min(88%,44rem);padding:.45rem .75rem;border-radius:8px;white-space:pre-wrap;
overflow-wrap:anywhere;background:var(--shade);border:1px solid var(--line);line-height:1.5}
.turn.user .text{background:var(--color-accent-soft);border-color:var(--pale)}
#chat-box textarea{field-sizing:content;height:auto!important;max-height:11rem}
#chat-buttons{gap:.4rem;flex-wrap:nowrap}
#chat-buttons button,#judge button,#runs-again{padding-left:.2rem;padding-right:.2rem}
#judge .row{gap:.4rem}
#runs-bar{align-items:flex-end}
#judge{border:1px solid var(--line);border-radius:6px;padding:.7rem;gap:.5rem}
#judge .block,#judge .form{border:0;padding:0;background:none}
.report{width:100%;height:78vh;border:1px solid var(--line);border-radius:6px;background:#fff}
.run{font-size:.9375rem}
.run h2{font-size:1.05rem;margin:1.4rem 0 .5rem}
.run h3{font-size:.95rem;margin:1rem 0 .4rem}
.run .quiet,.run .legend{color:var(--soft);font-size:.875rem;font-weight:400}
.run .scroll{overflow-x:auto}
.run table{border:0!important;margin:0;border-collapse:collapse;width:100%;font-size:.875rem;
font-variant-numeric:tabular-nums}
.run thead,.run tbody,.run tr{border:0!important}
.run th{font-weight:600;color:var(--soft);font-size:.8125rem;text-align:right;white-space:nowrap}
.run td{text-align:right;white-space:nowrap}
.run th,.run td{padding:.35rem .6rem;border:0;border-bottom:1px solid var(--line)}
.run th:first-child,.run td:first-child{text-align:left;padding-left:0;white-space:normal}
.run td.words,.run th.words{text-align:left;white-space:normal;overflow-wrap:anywhere}
.run .about thead{display:none}
.run table.narrow{width:auto;min-width:18rem}
.run .grid2{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,20rem),27rem));gap:1.2rem}
.run figure{margin:0}
.run figcaption{font-weight:600;margin-bottom:.3rem}
.run svg{width:100%;height:auto;display:block}
.run svg text{font-size:11px;fill:var(--soft)}
.run .grid{stroke:var(--line)}
.run polyline{fill:none;stroke-width:1.6;stroke-linejoin:round}
.run polyline.train{stroke:var(--pale);stroke-width:1.4}.run polyline.valid{stroke:var(--main)}
.run circle.train{fill:var(--pale)}.run circle.valid{fill:var(--main)}
.run .key{margin-left:.7rem;white-space:nowrap}
.run .key::before{content:"";display:inline-block;width:.9rem;height:3px;margin-right:.35rem;vertical-align:middle;
background:var(--pale)}
.run .key.valid::before{background:var(--main)}
.run article{border:1px solid var(--line);border-radius:6px;padding:.6rem .8rem;margin:.6rem 0}
.run .said{background:var(--shade);border-radius:4px;padding:.5rem .7rem;margin:.25rem 0 0;white-space:pre-wrap;
overflow-wrap:anywhere;font:.8438rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"Liberation Mono",monospace}
.run .mark{font-size:.8125rem;font-weight:600}.run .mark.good{color:var(--good)}.run .mark.bad{color:var(--bad)}
@media (max-width:40rem){
.gradio-container main,.gradio-container .main,.gradio-container{padding:.4rem!important}
#title span{display:none}
textarea,input[type=text],input[type=number]{font-size:16px!important}
.run table.wide,.run .wide tbody,.run .wide tr,.run .wide td{display:block}.run .wide thead{display:none}
.run .wide tr{padding:.4rem 0;border-bottom:1px solid var(--line)}
.run .wide td{display:flex;justify-content:space-between;gap:1rem;border:0;padding:.1rem 0}
.run .wide td[data-name]::before{content:attr(data-name);color:var(--soft)}
}
"""
"""What charts and tables of `evaluate` need, and little else. A field below 16 pixels makes a phone zoom in."""


def theme() -> Any:
    """Gradio's plain theme in the colours of the reports; no font is fetched."""
    gr = gradio()
    blue = gr.themes.Color(**_BLUE, name="ramify")
    return gr.themes.Base(
        primary_hue=blue,
        secondary_hue=blue,
        neutral_hue="slate",
        radius_size="sm",
        font=[gr.themes.Font(name) for name in _TEXT],
        font_mono=[gr.themes.Font(name) for name in _CODE],
    )


def status(text: str, failed: bool = False) -> str:
    """One line of plain text as HTML."""
    return f"<p class='status{' failed' if failed else ''}' role='status'>{escape(text)}</p>"


def turns_html(turns: Sequence[tuple[str, str]], otherwise: str = "") -> str:
    """(role, text) of turns as HTML in which every letter of the text stays a letter."""
    shown = [f"<div class='turn {escape(role)}'><div class='text'>{escape(text)}</div></div>" for role, text in turns]
    return "".join(shown) or otherwise
