"""The report's style sheet: readable on a phone, on a wide screen and on paper."""

CSS = """
:root { color-scheme: light; --ink: #1d2329; --soft: #5c6670; --line: #e2e6ea; --paper: #fff; }
* { box-sizing: border-box; }
body { margin: 0; background: #f4f5f7; color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 64rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .6rem; letter-spacing: -.01em; }
h2 { font-size: 1.15rem; margin: 0 0 .8rem; }
h3 { font-size: .95rem; margin: .4rem 0; color: var(--soft); }
.lead { font-size: 1.08rem; color: #3a434b; max-width: 46rem; margin: 0 0 1.5rem; }
section { background: var(--paper); border: 1px solid var(--line); border-radius: .6rem;
  padding: 1.3rem 1.5rem; margin: 0 0 1.2rem; break-inside: avoid; }
.alarm { background: #b3261e; color: #fff; border-radius: .6rem; padding: 1.1rem 1.5rem;
  font-size: 1.05rem; margin: 0 0 1.2rem; }
.alarm strong { display: block; font-size: 1.35rem; }
ul { margin: 0; padding-left: 1.2rem; }
li { margin: .25rem 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th, td { text-align: left; padding: .45rem .9rem .45rem 0; vertical-align: top;
  border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; }
tbody tr:last-child td { border-bottom: 0; }
table.figures { font-variant-numeric: tabular-nums; }
table.figures td:first-child { white-space: nowrap; font-weight: 600; }
table.pairs { width: auto; }
table.pairs td { overflow-wrap: anywhere; }
table.pairs td:first-child { color: var(--soft); }
small { display: block; color: var(--soft); font-size: .8rem; font-weight: 400; }
small.range { white-space: nowrap; }
.dot { display: inline-block; width: .7rem; height: .7rem; border-radius: 50%;
  margin-right: .5rem; }
.strip { position: relative; min-width: 9rem; height: .9rem; margin-top: .3rem;
  background: #eef1f3; border-radius: .2rem; }
.strip b { position: absolute; top: .2rem; height: .5rem; opacity: .4; }
.strip u { position: absolute; top: 0; width: 3px; height: .9rem; margin-left: -1.5px; }
.badge { display: inline-block; border-radius: 1rem; padding: 0 .6rem; font-size: .82rem;
  font-weight: 600; white-space: nowrap; }
.badge.higher { background: #d9efe6; color: #00513a; }
.badge.lower { background: #fbe0d0; color: #7a3000; }
.badge.within_noise, .badge.too_few { background: #e7eaed; color: #444c54; }
figure { margin: 0; }
img { max-width: 100%; display: block; margin: 0 auto; }
figcaption { color: #3a434b; margin-top: .8rem; max-width: 46rem; }
dt { font-weight: 600; margin-top: .6rem; }
dd { margin: 0; max-width: 46rem; }
.columns { display: grid; gap: 0 2rem;
  grid-template-columns: repeat(auto-fit, minmax(18rem, 1fr)); }
summary { cursor: pointer; margin-top: .8rem; color: #0b5cad; }
@media print { body { background: none; } section { border: 0; padding: .6rem 0; } }
"""
