// What all plots share: the page's colours and letters, and escaping for Plotly, which reads text as markup.
"use strict";

const Plots = (() => {
  const config = { responsive: true, displayModeBar: false, doubleClick: "reset" };

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  }

  function escaped(text) {
    return String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  }

  function axis(extra) {
    return {
      gridcolor: colour("line"), linecolor: colour("line"), zeroline: false, automargin: true, ticks: "",
      tickfont: { color: colour("muted") }, ...extra,
    };
  }

  function layout(extra) {
    return {
      margin: { l: 44, r: 12, t: 8, b: 30 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colour("ink") },
      hoverlabel: { bgcolor: colour("surface"), bordercolor: colour("line"), font: { color: colour("ink") }, align: "left" },
      showlegend: false, ...extra,
    };
  }

  // Draws now, when the data changed, and when the reader's screen turns dark or light.
  function keep(draw) {
    draw();
    document.addEventListener("coldchain:changed", draw);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  }

  async function json(url) {
    const answer = await fetch(url);
    if (!answer.ok) throw new Error(`${url} answered ${answer.status}`);
    return answer.json();
  }

  return { config, colour, escaped, axis, layout, keep, json };
})();
