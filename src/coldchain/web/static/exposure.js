// An exposure's radial profile and motion track, and the switches over its picture.
"use strict";

(() => {
  const sources = document.getElementById("sources");
  const micrograph = document.getElementById("micrograph").parentElement;

  function show(id, isThere) {
    document.getElementById(id).hidden = !isThere;
    document.getElementById(`${id}-none`).hidden = isThere;
  }

  function drawProfile(profile, ctf) {
    const line = (name, values, colour, width, dash) => ({
      type: "scatter", mode: "lines", name, x: profile.frequency_per_angstrom, y: values,
      customdata: profile.frequency_per_angstrom.map((value) => (value > 0 ? (1 / value).toFixed(2) : "∞")),
      line: { color: Plots.colour(colour), width, dash }, hovertemplate: `%{y:.2f} ${name} at %{customdata} Å<extra></extra>`,
    });
    const limit = ctf && ctf.fit_resolution_angstrom > 0 ? 1 / ctf.fit_resolution_angstrom : null;
    const shapes = limit === null ? [] : [{
      type: "line", x0: limit, x1: limit, yref: "paper", y0: 0, y1: 1, line: { color: Plots.colour("muted"), width: 1, dash: "dot" },
    }];
    const layout = Plots.layout({
      xaxis: Plots.axis({ title: { text: "spatial frequency (Å⁻¹)", font: { color: Plots.colour("muted") } }, showgrid: false }),
      yaxis: Plots.axis({ nticks: 5 }), shapes, margin: { l: 40, r: 12, t: 8, b: 44 },
      showlegend: true, legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
    });
    Plotly.react("profile", [
      { ...line("fitted", profile.fitted, "bad", 1.1, "solid"), opacity: 0.6 },
      line("measured", profile.measured, "accent", 1.7, "solid"),
      line("agreement", profile.agreement, "good", 1.2, "dot"),
    ], layout, Plots.config);
  }

  function drawTrack(motion) {
    const frames = motion.shift_x_angstrom.map((_, index) => index + 1);
    const hover = "frame %{customdata}<br>x %{x:.2f} Å, y %{y:.2f} Å<extra></extra>";
    const path = {
      type: "scatter", mode: "lines+markers", x: motion.shift_x_angstrom, y: motion.shift_y_angstrom, customdata: frames,
      line: { color: Plots.colour("line-strong"), width: 1.4 }, hovertemplate: hover,
      marker: { color: frames, colorscale: [[0, Plots.colour("accent")], [1, Plots.colour("good")]], size: 6 },
    };
    const first = {
      type: "scatter", mode: "markers+text", cliponaxis: false, x: [motion.shift_x_angstrom[0]], y: [motion.shift_y_angstrom[0]], customdata: [1],
      text: ["first frame"], textposition: "top center", textfont: { color: Plots.colour("muted") }, hovertemplate: hover,
      marker: { color: Plots.colour("surface"), size: 11, line: { color: Plots.colour("accent"), width: 2.5 } },
    };
    const title = (text) => ({ text, font: { color: Plots.colour("muted") } });
    const layout = Plots.layout({
      xaxis: Plots.axis({ title: title("x (Å)") }), hovermode: "closest", margin: { l: 48, r: 12, t: 12, b: 44 },
      yaxis: Plots.axis({ title: title("y (Å)"), scaleanchor: "x", scaleratio: 1 }),
    });
    Plotly.react("track", [path, first], layout, Plots.config);
  }

  async function draw() {
    const { results, motion_found } = await Plots.json(sources.dataset.exposure);
    const profile = sources.dataset.profile ? await Plots.json(sources.dataset.profile) : null;
    show("profile", profile !== null);
    // Where the frames did not tell their motion the shifts are 0 for want of better: no track is better.
    const isMoved = motion_found === true;
    show("track", isMoved);
    if (profile) drawProfile(profile, results.ctf);
    if (isMoved) drawTrack(results.motion);
  }

  function obey(id, name) {
    const box = document.getElementById(id);
    const apply = () => micrograph.classList.toggle(name, !box.checked);
    box.addEventListener("change", apply);
    apply();
  }

  obey("show-picks", "without-picks");
  obey("show-bar", "without-bar");
  Plots.keep(draw);
})();
