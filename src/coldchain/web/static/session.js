// A session's plots against time, each with its distribution at the side. A point is an exposure in the colour and
// shape of its verdict; a click opens it. Where a change was noticed the ground is tinted for as long as its alert lasts.
"use strict";

(() => {
  const section = document.getElementById("plots");
  const kinds = [
    { key: "defocus", field: "defocus_angstrom", scale: 1e-4, unit: "µm", digits: 2 },
    { key: "resolution", field: "fit_resolution_angstrom", scale: 1, unit: "Å", digits: 1 },
    { key: "astigmatism", field: "astigmatism_angstrom", scale: 1, unit: "Å", digits: 0 },
    { key: "motion", field: "total_motion_angstrom", scale: 1, unit: "Å", digits: 1 },
    { key: "ice", field: "ice_thickness", scale: 1, unit: "λ", digits: 2, span: 0.1, none: "from the eleventh exposure on" },
    { key: "picks", field: "picks", scale: 1, unit: "", digits: 0 },
  ];

  const tones = { good: "accent", doubtful: "warn", bad: "bad" };
  const shapes = { good: "circle", doubtful: "diamond", bad: "square" };
  const fitted = new Set(["defocus", "resolution", "astigmatism"]);
  const alertPlots = { focus: "defocus", "fit resolution": "resolution", astigmatism: "astigmatism", motion: "motion" };

  // Only what the CTF fit says can be doubtful because of the CTF fit.
  function isDoubtful(kind, readings, index) {
    return fitted.has(kind.key) && readings.trustworthy[index] === false;
  }

  function verdictOf(readings, index) {
    const words = readings.grade[index] === null ? "" : `${readings.grade[index]}${readings.reason[index] ? `: ${readings.reason[index]}` : ""}`;
    return words.length > 90 ? `${words.slice(0, 88)}…` : words;
  }

  function traceOf(kind, readings, doubtful) {
    const chosen = readings.time.map((_, index) => index)
      .filter((index) => readings[kind.field][index] !== null && isDoubtful(kind, readings, index) === doubtful);
    const colours = chosen.map((index) => Plots.colour(tones[readings.grade[index]] || "accent"));
    return {
      type: "scatter", mode: "markers",
      x: chosen.map((index) => readings.time[index]),
      y: chosen.map((index) => readings[kind.field][index] * kind.scale),
      customdata: chosen.map((index) => readings.exposure_id[index]),
      text: chosen.map((index) => [readings.name[index].split("/").pop(), verdictOf(readings, index)].filter(Boolean).map(Plots.escaped).join("<br>")),
      marker: doubtful
        ? { color: colours, size: 7, symbol: "x-thin-open", line: { width: 1.6, color: colours } }
        : { color: colours, size: 6, opacity: 0.8, symbol: chosen.map((index) => shapes[readings.grade[index]] || "circle") },
      hovertemplate: `<b>%{y:.${kind.digits}f} ${kind.unit}</b>${doubtful ? " not to be trusted" : ""}<br>%{text}<br>%{x|%Y-%m-%d %H:%M:%S}<extra></extra>`,
    };
  }

  // How the trusted values spread, along the same axis.
  function distributionOf(trace) {
    return {
      type: "histogram", orientation: "h", y: trace.y, xaxis: "x2", nbinsy: 24, hoverinfo: "skip",
      marker: { color: Plots.colour("accent"), opacity: 0.35 },
    };
  }

  // From the exposure since which a quantity is another to the one by which it was back, or to the end.
  function tinted(kind, readings, alerts) {
    const timeOf = (id) => readings.time[readings.exposure_id.indexOf(id)];
    return alerts.filter((alert) => alertPlots[alert.change.quantity] === kind.key && timeOf(alert.change.since))
      .map((alert) => ({
        type: "rect", layer: "below", yref: "paper", y0: 0, y1: 1, line: { width: 0 },
        x0: timeOf(alert.change.since), x1: timeOf(alert.ended_by) || readings.time.at(-1),
        fillcolor: Plots.colour("warn"), opacity: alert.ended_at ? 0.08 : 0.18,
      }));
  }

  // From 0, with room for the marks at the top: the distribution's bars would end with the last of them.
  function rangeOf(kind, readings) {
    const values = readings[kind.field].filter((value) => value !== null).map((value) => value * kind.scale);
    const low = values.reduce((least, value) => Math.min(least, value), 0);
    const high = values.reduce((most, value) => Math.max(most, value), kind.span || 0);
    const span = high - low || 1;
    return [low < 0 ? low - 0.08 * span : -0.03 * span, high + 0.08 * span];
  }

  function drawOne(kind, readings, alerts) {
    const element = section.querySelector(`[data-plot="${kind.key}"]`);
    const y = Plots.axis({ ticksuffix: kind.unit ? ` ${kind.unit}` : "", range: rangeOf(kind, readings), nticks: 5 });
    const x = Plots.axis({
      type: "date", nticks: 3, domain: [0, 0.85], showgrid: false, tickangle: 0,
      tickformatstops: [{ dtickrange: [null, 60000], value: "%H:%M:%S" }, { dtickrange: [60000, 72000000], value: "%H:%M" },
        { dtickrange: [72000000, null], value: "%b %-d" }],
    });
    const values = readings[kind.field].filter((value) => value !== null);
    const layout = Plots.layout({
      xaxis: x, yaxis: y, hovermode: "closest", uirevision: "keep", bargap: 0.1, shapes: tinted(kind, readings, alerts),
      xaxis2: { domain: [0.87, 1], visible: false, fixedrange: true },
    });
    if (!values.length) {
      layout.xaxis.visible = layout.yaxis.visible = false;
      layout.annotations = [{ text: kind.none || "nothing yet", showarrow: false, xref: "paper", yref: "paper", x: 0.5, y: 0.5 }];
    }
    const first = !element.dataset.drawn;
    const traces = [traceOf(kind, readings, false), traceOf(kind, readings, true)];
    traces.push(distributionOf(traces[0]));
    if (traces[1].x.length) {
      layout.annotations = [{
        text: "× not to be trusted", showarrow: false, xref: "paper", yref: "paper", x: 0.85, y: 0, xanchor: "right",
        yanchor: "bottom", font: { size: 11, color: Plots.colour("warn") },
      }];
    }
    Plotly.react(element, traces, layout, Plots.config);
    if (first) {
      element.dataset.drawn = "yes";
      element.on("plotly_click", (click) => {
        if (click.points[0].customdata) location.href = `/sessions/${section.dataset.session}/exposures/${click.points[0].customdata}`;
      });
    }
    const last = section.querySelector(`[data-last="${kind.key}"]`);
    const newest = readings[kind.field].findLastIndex((value) => value !== null);
    const doubtful = newest >= 0 && isDoubtful(kind, readings, newest);
    last.textContent = newest < 0 ? ""
      : `${(readings[kind.field][newest] * kind.scale).toFixed(kind.digits)} ${kind.unit}${doubtful ? " ×" : ""}`.trim();
  }

  async function draw() {
    const [readings, alerts] = await Promise.all([Plots.json(section.dataset.readings), Plots.json(section.dataset.alerts)]);
    for (const kind of kinds) drawOne(kind, readings, alerts);
  }

  Plots.keep(draw);
})();
