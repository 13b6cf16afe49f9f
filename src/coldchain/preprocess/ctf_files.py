"""What a CTF fit leaves on the disk.

| role | file | what it holds |
|---|---|---|
| spectrum | STEM_ctf.mrc | the diagnostic picture: left the measured spectrum, right the fitted one |
| picture | STEM_ctf.png | the same to look at, with what was found in words |
| profile | STEM_ctf_profile.txt | averages along the rings: a table to plot |
| plot | STEM_ctf_profile.svg | the same plotted |

Of a picture in which there was nothing to fit no file is written.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from coldchain.formats.files import replacing
from coldchain.formats.mrc import write_mrc
from coldchain.kernels.ctf import CtfFit
from coldchain.preprocess.captions import label, with_caption
from coldchain.preprocess.output_names import CTF_ENDINGS
from coldchain.preprocess.previews import save_png, spectrum_picture
from coldchain.preprocess.profile_plot import profile_svg

_SMALLEST_PICTURE_PIXEL = 640


def write_fit(fit: CtfFit, folder: Path, stem: str) -> dict[str, str]:
    """Write a fit's files into a folder; their names by role (see the module). Each is whole or absent.

    Raises StorageError where a file cannot be written.
    """
    if not fit.diagnostic.size:
        return {}
    names = {role: stem + ending for role, ending in CTF_ENDINGS.items()}
    write_diagnostic(fit, folder / names["spectrum"])
    with replacing(folder / names["picture"]) as stream:
        save_png(_captioned(fit, stem), stream)
    _write_profile(fit, folder / names["profile"])
    resolution = fit.result.fit_resolution_angstrom
    with replacing(folder / names["plot"]) as stream:
        stream.write(profile_svg(fit, title=stem, resolution_angstrom=resolution).encode())
    return names


def write_diagnostic(fit: CtfFit, path: Path) -> None:
    """Write the diagnostic picture, which must not be empty. Its pixel is that of a picture with this spectrum: half
    its width is the frequency 1 / (2 pixels)."""
    highest = float(fit.profile_frequency_per_angstrom[-1])
    write_mrc(path, fit.diagnostic, pixel_size_angstrom=1 / (2 * highest))


def profile_document(fit: CtfFit) -> str:
    """The profile as JSON, for the page's plot; there is no word for NaN in it, so null stands for it."""
    columns = {
        "frequency_per_angstrom": fit.profile_frequency_per_angstrom,
        "measured": fit.profile_measured,
        "fitted": fit.profile_fitted,
        "agreement": fit.profile_agreement,
    }
    return json.dumps({name: _rounded(values) for name, values in columns.items()})


def _rounded(values: NDArray[np.float32]) -> list[float | None]:
    return [round(float(v), 5) if np.isfinite(v) else None for v in values]


def _write_profile(fit: CtfFit, path: Path) -> None:
    frequency = fit.profile_frequency_per_angstrom.astype(np.float64)
    with np.errstate(divide="ignore"):
        resolution = 1 / frequency
    rows = zip(frequency, resolution, fit.profile_measured, fit.profile_fitted, fit.profile_agreement, strict=True)
    head = "# frequency_per_angstrom resolution_angstrom measured fitted agreement\n"
    lines = "".join(f"{k:.6f} {r:9.3f} {m:8.4f} {f:7.4f} {a:7.4f}\n" for k, r, m, f, a in rows)
    with replacing(path) as stream:
        stream.write((head + lines).encode("ascii"))


def _captioned(fit: CtfFit, stem: str) -> Image.Image:
    picture = spectrum_picture(fit.diagnostic)
    factor = -(-_SMALLEST_PICTURE_PIXEL // picture.width)
    if factor > 1:
        picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    label(picture, "measured, smoothed along the rings" if fit.smoothed else "measured")
    label(picture, "fitted", right=True)
    return with_caption(picture, [stem, *_in_words(fit)])


def _in_words(fit: CtfFit) -> list[str]:
    """What was found, and whether to believe it."""
    result = fit.result
    found = (
        f"defocus {result.defocus_u_angstrom:.0f} / {result.defocus_v_angstrom:.0f} Å at"
        f" {result.defocus_angle_degrees:.1f}°, rings to {result.fit_resolution_angstrom:.1f} Å"
    )
    if result.phase_shift_degrees:
        found += f", phase shift {result.phase_shift_degrees:.1f}°"
    if fit.tilt_degrees and fit.tilt_uncertainty_degrees is not None:
        found += (
            f", tilt {fit.tilt_degrees:.1f} ± {fit.tilt_uncertainty_degrees:.1f}° about {fit.tilt_axis_degrees:.1f}°"
        )
    if not result.trustworthy:
        return [f"NOT TO BE TRUSTED: {result.reason}", f"best found: {found}"]
    return [found, f"trustworthy to ± {result.uncertainty_angstrom:.0f} Å"]
