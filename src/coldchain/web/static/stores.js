// How full each store was and will be: bytes in use over time, the band that is foretold, the line of the full store.
// Below, whose the bytes are; that may take a moment to count, and is asked for when the page stands.
"use strict";

(() => {
  const list = document.getElementById("stores");
  const usage = document.getElementById("usage");
  const most = 12;
  let by = "session";

  function bytes(value) {
    const units = ["B", "kB", "MB", "GB", "TB", "PB"];
    const exponent = value < 1000 ? 0 : Math.min(Math.floor(Math.log10(value) / 3), 5);
    const scaled = value / 1000 ** exponent;
    return `${exponent === 0 || scaled >= 100 ? scaled.toFixed(0) : scaled.toFixed(1)} ${units[exponent]}`;
  }

  // One unit for an axis, so that its ticks are round numbers.
  function unitOf(total) {
    const units = [["PB", 1e15], ["TB", 1e12], ["GB", 1e9], ["MB", 1e6], ["kB", 1e3]];
    return units.find(([, size]) => total >= size) || ["B", 1];
  }

  function tracesOf(found, scale, unit) {
    const { history, course } = found;
    const hover = (name) => `<b>%{y:.3~g} ${unit}</b> ${name}<br>%{x|%Y-%m-%d %H:%M}<extra></extra>`;
    const line = (x, y, name, style) => ({
      type: "scatter", mode: "lines", x, y: y.map((value) => value / scale), hovertemplate: hover(name), ...style,
    });
    const traces = [line(history.time, history.total_bytes, "whole", { line: { color: Plots.colour("bad"), width: 1.2, dash: "dash" } })];
    if (course) {
      const none = { line: { width: 0 }, hoverinfo: "skip", hovertemplate: null };
      traces.push(line(course.time, course.low, "", none));
      traces.push(line(course.time, course.high, "", { ...none, fill: "tonexty", fillcolor: Plots.colour("accent-band") }));
      traces.push(line(course.time, course.middle, "foretold, with what is wanted", { line: { color: Plots.colour("accent"), width: 1.6, dash: "dot" } }));
      const last = found.store.total_bytes;
      const ends = [history.time.at(-1), course.time.at(-1)];
      traces.push(line(ends, [last, last], "whole", { line: { color: Plots.colour("bad"), width: 1.2, dash: "dash" } }));
    }
    traces.push(line(history.time, history.used_bytes, "in use", { line: { color: Plots.colour("accent"), width: 2 }, fill: "tozeroy", fillcolor: Plots.colour("accent-soft") }));
    return traces;
  }

  // From 0, or from a little below where it began if that was more than half full: what matters is at the top.
  function rangeOf(history, whole) {
    const least = history.used_bytes.reduce((low, value) => Math.min(low, value), whole);
    const from = least > 0.5 * whole ? least - 0.6 * (whole - least) : 0;
    return [from, whole + 0.06 * (whole - from)];
  }

  function drawOne(element, found) {
    const { history } = found;
    const figure = element.closest("figure");
    figure.hidden = history.time.length < 2;
    if (figure.hidden) return;
    const whole = Math.max(...history.total_bytes, found.store.total_bytes);
    const [unit, scale] = unitOf(whole);
    const layout = Plots.layout({
      hovermode: "closest", uirevision: "keep",
      xaxis: Plots.axis({ type: "date", nticks: 5, showgrid: false, tickangle: 0 }),
      yaxis: Plots.axis({ ticksuffix: ` ${unit}`, range: rangeOf(history, whole).map((value) => value / scale), nticks: 5 }),
      shapes: [{ type: "line", x0: history.time.at(-1), x1: history.time.at(-1), yref: "paper", y0: 0, y1: 1, line: { color: Plots.colour("line-strong"), width: 1 } }],
    });
    Plotly.react(element, tracesOf(found, scale, unit), layout, Plots.config);
  }

  async function draw() {
    for (const found of await Plots.json(list.dataset.stores)) {
      const element = [...list.querySelectorAll("[data-plot]")]
        .find((one) => one.dataset.plot === `${found.store.site}-${found.store.name}`);
      if (element) drawOne(element, found);
    }
  }

  function row(kind, cells) {
    const line = document.createElement("tr");
    for (const cell of cells) {
      const element = document.createElement(kind);
      if (cell instanceof Node) element.append(cell);
      else element.textContent = cell;
      line.append(element);
    }
    return line;
  }

  function named(one) {
    if (!one.session_id) return one.name || "no project";
    const link = document.createElement("a");
    link.href = `/sessions/${one.session_id}`;
    link.textContent = one.name;
    return link;
  }

  async function count() {
    const asked = by;
    const rows = await Plots.json(`${usage.dataset.usage}?by=${asked}`);
    if (asked !== by) return;
    const stores = [...new Set(rows.flatMap((one) => Object.keys(one.by_store)))].sort();
    const size = (held) => (!held ? "" : bytes(held.size_bytes + held.damaged_bytes) + (held.trash_bytes ? ` + ${bytes(held.trash_bytes)} trash` : ""));
    usage.querySelector("thead").replaceChildren(row("th", [by, ...stores]));
    usage.querySelector("tbody").replaceChildren(...rows.slice(0, most).map((one) => row("td", [named(one), ...stores.map((name) => size(one.by_store[name]))])));
    document.getElementById("usage-note").textContent = rows.length > most ? "Those that take most are listed; this lists all: coldchain store usage" : rows.length ? "" : "Nothing lies on the stores yet.";
  }

  Plots.keep(draw);
  if (!usage) return;
  for (const link of usage.querySelectorAll("[data-by]")) {
    link.addEventListener("click", (click) => {
      click.preventDefault();
      by = link.dataset.by;
      for (const other of usage.querySelectorAll("[data-by]")) other.toggleAttribute("aria-current", false);
      link.setAttribute("aria-current", "true");
      count();
    });
  }
  count();
  document.addEventListener("coldchain:changed", count);
})();
