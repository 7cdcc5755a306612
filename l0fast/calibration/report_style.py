"""The look of the report. Fonts are the reader's own; nothing is fetched."""

CSS = """
:root { --ink: #27323a; --faint: #6b7780; --rule: #dfe4e8; --paper: #fff; --wash: #f5f7f8;
        --before: #d98c3f; --after: #1d6a96; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--wash); color: var(--ink);
       font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 36px 32px 64px; background: var(--paper); min-height: 100vh; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 4px; letter-spacing: -0.01em; }
h2 { font-size: 18px; margin: 44px 0 12px; padding-top: 14px; border-top: 1px solid var(--rule); }
p { margin: 8px 0; max-width: 76ch; }
.faint { color: var(--faint); }
.cards { display: grid; grid-template-columns: repeat(4, 1fr); gap: 14px; margin: 26px 0 8px; }
@media (max-width: 1040px) { .cards { grid-template-columns: repeat(2, 1fr); } }
@media (max-width: 560px) { .cards { grid-template-columns: 1fr; } main { padding: 24px 16px; } }
.card { border: 1px solid var(--rule); border-radius: 8px; padding: 14px 16px 12px; }
.card .label { color: var(--faint); font-size: 13px; }
.card .figure { font-size: 24px; font-weight: 650; letter-spacing: -0.01em; line-height: 1.3;
                font-variant-numeric: tabular-nums; white-space: nowrap; }
.card .note { color: var(--faint); font-size: 13px; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(420px, 100%), 1fr)); gap: 20px 28px;
        align-items: start; }
figure { margin: 0; }
svg { display: block; width: 100%; max-width: 600px; height: auto; }
svg text { font-family: inherit !important; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; font-variant-numeric: tabular-nums; }
th { text-align: left; color: var(--faint); font-weight: 600; border-bottom: 1.5px solid var(--rule);
     vertical-align: bottom; }
th, td { padding: 5px 10px 5px 0; }
td { border-bottom: 1px solid var(--rule); }
th.n, td.n { text-align: right; white-space: nowrap; }
td.name { overflow-wrap: anywhere; min-width: 14ch; }
td.bar { width: 30%; padding: 5px 0 5px 16px; }
.bar div { height: 7px; border-radius: 2px; margin: 2px 0; min-width: 1px; }
.b { background: var(--before); } .a { background: var(--after); }
.key { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin: 0 5px 0 0; }
ul { padding-left: 20px; margin: 8px 0; } li { margin: 4px 0; overflow-wrap: anywhere; }
.small td { font-size: 13px; }
.small td:first-child { color: var(--faint); white-space: nowrap; width: 1%; padding-right: 22px; }
.small td.value { overflow-wrap: anywhere; }
@media print { body { background: none; } main { padding: 0; max-width: none; } h2 { break-after: avoid; }
               figure, tr, .card { break-inside: avoid; } }
"""
