"""How a report looks: on a desk, on a phone, on paper, in grey."""

from __future__ import annotations

STYLE = """
:root{color-scheme:light;--ink:#1c2430;--soft:#586372;--line:#e0e4ea;--paper:#fff;--shade:#f4f6f8;
--main:#2a6f97;--pale:#b3cddc;--good:#17693a;--bad:#a8301a}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:1rem/1.55 system-ui,-apple-system,"Segoe UI",Roboto,
"Noto Sans","Liberation Sans",sans-serif;-webkit-text-size-adjust:100%}
main{max-width:64rem;margin:0 auto;padding:2rem 1.1rem 4rem;overflow-wrap:break-word}
h1{font-size:1.75rem;line-height:1.2;margin:.1rem 0 1rem;letter-spacing:-.01em}
h2{font-size:1.2rem;line-height:1.3;margin:2.8rem 0 .7rem}
h3{font-size:1rem;margin:1.7rem 0 .5rem}
h1,h2,h3,h4,p,li,summary,figcaption,.name{overflow-wrap:anywhere}
p{margin:.5rem 0;max-width:46rem}
ul{margin:.5rem 0;padding-left:1.2rem;max-width:46rem}li{margin:.25rem 0}
.over,.quiet,.legend,footer{color:var(--soft);font-size:.875rem}
.lead{font-size:1.15rem;line-height:1.5}
.verdict{border-left:4px solid var(--soft);padding:.15rem 0 .15rem .9rem;margin:.9rem 0}
.verdict.better{border-color:var(--good)}.verdict.worse{border-color:var(--bad);border-left-style:double}
.verdict.not_shown{border-left-style:dashed}
.scroll{overflow-x:auto;margin:.8rem 0}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:.9375rem}
th{font-weight:600;color:var(--soft);font-size:.8125rem;text-align:right;vertical-align:bottom;line-height:1.3}
td{text-align:right;white-space:nowrap;vertical-align:top}
th,td{padding:.45rem .7rem;border-bottom:1px solid var(--line)}
th:last-child,td:last-child{padding-right:0}
th:first-child,td:first-child{text-align:left;padding-left:0;white-space:normal}
td:first-child{min-width:7rem;overflow-wrap:anywhere}
td.words,th.words{text-align:left;white-space:normal}td.words{min-width:5rem;overflow-wrap:anywhere}
table.narrow{width:auto;min-width:18rem}
figure{margin:0}
figcaption{font-weight:600;font-size:.9375rem;margin-bottom:.3rem}
svg{width:100%;display:block}
svg[viewBox]{height:auto}
svg svg{overflow:visible}
svg text{font-size:11px;fill:var(--soft)}
.rows{margin:1.1rem 0 1.4rem}
.row{display:grid;gap:.15rem .9rem;align-items:center;margin:.4rem 0}
.row.bar{grid-template-columns:minmax(6.5rem,13rem) 1fr 10.5rem}
.stack .row.bar{grid-template-columns:minmax(6.5rem,13rem) 1fr 5rem}
.row.estimate{grid-template-columns:minmax(6.5rem,13rem) 1fr 13.2rem 7.4rem;margin:0}
.row svg{overflow:visible}.row.strong{font-weight:600}.row .found{font-size:.875rem}.row.axis .figure{grid-column:3/-1}
.name{min-width:0}
.figure{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
.strong .figure{font-weight:600}
.track{fill:var(--shade)}.fill{fill:var(--main)}
.whisker line{stroke:var(--ink);stroke-width:1.6}
.grid{stroke:var(--line)}.zero{stroke:var(--soft);stroke-width:1.4}
.interval{stroke:var(--ink);stroke-width:1.8}
path.up{fill:var(--good)}path.down{fill:var(--bad)}circle.open{fill:var(--paper);stroke:var(--ink);stroke-width:1.6}
.right{fill:#1f5578}.wrong{fill:#d9834f}.no_answer{fill:#f0c9a8}
.truncated{fill:#fff;stroke:#9c5a2e;stroke-dasharray:3 2}
svg text.on{font-size:12px;fill:var(--ink);stroke:none}svg text.on.right{fill:#fff}
.swatch{margin-right:1rem;white-space:nowrap}
.swatch::before{content:"";display:inline-block;width:.9rem;height:.75rem;margin-right:.35rem;vertical-align:-.08em}
.swatch.right::before{background:#1f5578}.swatch.wrong::before{background:#d9834f}
.swatch.no_answer::before{background:#f0c9a8}.swatch.truncated::before{border:1px dashed #9c5a2e}
.grid2{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,20rem),1fr));gap:1.2rem}
.grid2>figure{max-width:32rem}
polyline{fill:none;stroke-width:1.6;stroke-linejoin:round}
polyline.train{stroke:var(--pale);stroke-width:1.4}polyline.valid{stroke:var(--main)}
circle.train{fill:var(--pale)}circle.valid{fill:var(--main)}
.key{font-weight:400;margin-left:.7rem;white-space:nowrap}
.key::before{content:"";display:inline-block;width:.9rem;height:3px;margin-right:.35rem;vertical-align:middle;
background:var(--pale)}
.key.valid::before{background:var(--main)}
article{border:1px solid var(--line);border-radius:6px;padding:.8rem 1rem;margin:.8rem 0;overflow:hidden}
article h4{margin:0 0 .5rem;font-size:1rem;font-weight:600;white-space:pre-line}
.gold{color:var(--soft);font-weight:400}
.said{background:var(--shade);border-radius:4px;padding:.5rem .7rem;margin:.25rem 0 0;white-space:pre-wrap;
overflow:hidden;overflow-wrap:anywhere;
font:.8438rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"Liberation Mono",monospace}
ins{text-decoration:underline 2px;text-underline-offset:2px;background:#d5ecdc}
del{text-decoration:line-through 1.5px;background:#f6d9d2}
.sign{color:#7a3d00;background:#fdf0d8;border-radius:2px;font-size:.85em}
.mark{font-size:.8125rem;font-weight:600}.mark.good{color:var(--good)}.mark.bad{color:var(--bad)}
.near{font-size:.875rem;margin:.7rem 0 0;max-width:none}.near .said{font-size:.8125rem}
table.dense{font-size:.8438rem}.dense th{font-size:.75rem}.dense th,.dense td{padding:.4rem .42rem}
.dense th:first-child,.dense td:first-child{padding-left:0}
table.matrix{width:auto}.matrix th,.matrix td{padding:.3rem .55rem}.matrix td{min-width:2.4rem;text-align:right}
.matrix th:first-child{padding-left:0}.matrix tbody th{color:var(--ink)}
.matrix .hit{outline:1.5px solid var(--main);outline-offset:-1.5px}
details{border-top:1px solid var(--line);padding:.5rem 0}
summary{cursor:pointer;font-weight:600}
footer{margin-top:3rem;border-top:1px solid var(--line);padding-top:.8rem}
@media (max-width:40rem){main{padding-top:1.2rem}h1{font-size:1.45rem}.lead{font-size:1.05rem}
.row.bar,.stack .row.bar{grid-template-columns:1fr auto}.row.estimate{grid-template-columns:1fr auto;margin:.55rem 0}
.row svg{grid-column:1/-1;grid-row:2}.row.bar .name,.row.bar svg{grid-column:1/-1}
.row.bar .name{grid-column:1}.row .found{grid-column:1/-1;grid-row:3;color:var(--soft)}
.row.axis{margin-top:-.3rem}.row.axis svg{grid-row:1}
.row.axis .figure{grid-column:1/-1;grid-row:2}.row.axis .name{display:none}
table.wide,.wide tbody,.wide tr,.wide td{display:block}.wide thead{display:none}
.wide tr{padding:.5rem 0;border-bottom:1px solid var(--line)}
.wide td,.wide td.words{display:flex;justify-content:space-between;gap:1rem;border:0;padding:.12rem 0;
white-space:normal;text-align:right}.wide td>bdi{min-width:0}
.wide td:first-child{font-weight:600;text-align:left}
.wide td[data-name]::before{content:attr(data-name);color:var(--soft);flex:none;max-width:45%;
text-align:left}}
@page{margin:14mm 13mm}
@media print{*{print-color-adjust:exact;-webkit-print-color-adjust:exact}
html{font-size:9.4pt}main{max-width:none;padding:0}.scroll{overflow:visible}a{color:inherit}
h1,h2,h3,h4,figcaption,summary{break-after:avoid}tr,article,figure,.row,.verdict,li{break-inside:avoid}
thead{display:table-header-group}p,li{orphans:3;widows:3}h2{margin-top:1.6rem}
table{font-size:.92rem}table.dense{font-size:7.3pt}th,.dense th{font-size:.8em;white-space:normal}td{white-space:normal}
th,td,.dense th,.dense td{padding:.25rem .3rem}
.grid2{grid-template-columns:1fr 1fr;gap:.8rem}
details{border:0;padding:0}details.screen{display:none}details::details-content{content-visibility:visible;display:block;
height:auto}summary{list-style:none}summary::-webkit-details-marker{display:none}
@supports not selector(::details-content){details{display:none}}}
"""
