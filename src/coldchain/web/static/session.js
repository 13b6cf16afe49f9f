// A session's plots against time. A point is an exposure; a click opens it.
"use strict";

(() => {
  const section = document.getElementById("plots");
  const kinds = [
    { key: "defocus", field: "defocus_angstrom", scale: 1e-4, unit: "µm", digits: 2 },
    { key: "resolution", field: "fit_resolution_angstrom", scale: 1, unit: "Å", digits: 1 },
    { key: "motion", field: "total_motion_angstrom", scale: 1, unit: "Å", digits: 1 },
    { key: "picks", field: "picks", scale: 1, unit: "", digits: 0 },
  ];

  // Only what the CTF fit says can be doubtful because of the CTF fit.
  function isDoubtful(kind, readings, index) {
    return (kind.key === "defocus" || kind.key === "resolution") && readings.trustworthy[index] === false;
  }

  function traceOf(kind, readings, doubtful) {
    const chosen = readings.time.map((_, index) => index)
      .filter((index) => readings[kind.field][index] !== null && isDoubtful(kind, readings, index) === doubtful);
    return {
      type: "scatter", mode: "markers",
      x: chosen.map((index) => readings.time[index]),
      y: chosen.map((index) => readings[kind.field][index] * kind.scale),
      customdata: chosen.map((index) => readings.exposure_id[index]),
      text: chosen.map((index) => Plots.escaped(readings.name[index].split("/").pop())),
      marker: doubtful
        ? { color: Plots.colour("warn"), size: 7, symbol: "x-thin-open", line: { width: 1.6, color: Plots.colour("warn") } }
        : { color: Plots.colour("accent"), size: 6, opacity: 0.8 },
      hovertemplate: `<b>%{y:.${kind.digits}f} ${kind.unit}</b>${doubtful ? " doubtful" : ""}<br>%{text}<br>%{x|%Y-%m-%d %H:%M:%S}<extra></extra>`,
    };
  }

  function drawOne(kind, readings) {
    const element = section.querySelector(`[data-plot="${kind.key}"]`);
    const y = Plots.axis({ ticksuffix: kind.unit ? ` ${kind.unit}` : "", rangemode: "tozero", nticks: 5 });
    const x = Plots.axis({
      type: "date", nticks: 3, showgrid: false, tickangle: 0,
      tickformatstops: [{ dtickrange: [null, 60000], value: "%H:%M:%S" }, { dtickrange: [60000, 72000000], value: "%H:%M" },
        { dtickrange: [72000000, null], value: "%b %-d" }],
    });
    const values = readings[kind.field].filter((value) => value !== null);
    const layout = Plots.layout({ xaxis: x, yaxis: y, hovermode: "closest", uirevision: "keep" });
    if (!values.length) {
      layout.xaxis.visible = layout.yaxis.visible = false;
      layout.annotations = [{ text: "nothing yet", showarrow: false, xref: "paper", yref: "paper", x: 0.5, y: 0.5 }];
    }
    const first = !element.dataset.drawn;
    const traces = [traceOf(kind, readings, false), traceOf(kind, readings, true)];
    if (traces[1].x.length) {
      layout.annotations = [{
        text: "× not to be trusted", showarrow: false, xref: "paper", yref: "paper", x: 1, y: 0, xanchor: "right",
        yanchor: "bottom", font: { size: 11, color: Plots.colour("warn") },
      }];
    }
    Plotly.react(element, traces, layout, Plots.config);
    if (first) {
      element.dataset.drawn = "yes";
      element.on("plotly_click", (click) => {
        location.href = `/sessions/${section.dataset.session}/exposures/${click.points[0].customdata}`;
      });
    }
    const last = section.querySelector(`[data-last="${kind.key}"]`);
    const newest = readings[kind.field].findLastIndex((value) => value !== null);
    const doubtful = newest >= 0 && isDoubtful(kind, readings, newest);
    last.textContent = newest < 0 ? ""
      : `${(readings[kind.field][newest] * kind.scale).toFixed(kind.digits)} ${kind.unit}${doubtful ? " ×" : ""}`.trim();
  }

  async function draw() {
    const readings = await Plots.json(section.dataset.readings);
    for (const kind of kinds) drawOne(kind, readings);
  }

  Plots.keep(draw);
})();
