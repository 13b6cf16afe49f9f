"""Planted against found: how near the pipeline came to what the simulator put in. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from coldchain.model.results import CtfResult, ExposureResults, MotionResult, PickResult
from coldchain.simulate.movie import local_displacement_angstrom
from coldchain.simulate.truth import MovieTruth

# What "recovered" means, for the simulator's own movies of 1024² pixels and more at 1 Å and 40 e⁻/Å².
MOTION_TOLERANCE_ANGSTROM = 1.0
DEFOCUS_TOLERANCE_ANGSTROM = 100.0
ASTIGMATISM_TOLERANCE_ANGSTROM = 150.0
PICK_F1_TOLERANCE = 0.85

# A pick is a particle's if it is nearer to the centre than this part of the diameter.
_MATCH_DIAMETERS = 0.3


@dataclass(frozen=True, slots=True)
class Check:
    """One planted value and what was found for it. `error` and `tolerance` are in the unit that `name` says."""

    name: str
    planted: str
    found: str
    error: float
    tolerance: float
    recovered: bool


def score(truth: MovieTruth, results: ExposureResults) -> list[Check]:
    """The checks of one exposure: motion, defocus, astigmatism, particles. What is missing is not recovered."""
    return [
        _motion(truth, results.motion),
        _defocus(truth, results.ctf),
        _astigmatism(truth, results.ctf),
        _particles(truth, results.picks),
    ]


def track_error_angstrom(truth: MovieTruth, motion: MotionResult) -> float:
    """Root mean square distance of the found track from the planted one, each track's mean removed."""
    planted = np.array([truth.shift_x_angstrom, truth.shift_y_angstrom])
    found = np.array([motion.shift_x_angstrom, motion.shift_y_angstrom])
    if planted.shape != found.shape:
        return math.inf
    difference = planted - found
    difference -= difference.mean(axis=1, keepdims=True)
    return float(np.sqrt((difference**2).sum(axis=0).mean()))


def field_error_angstrom(
    truth: MovieTruth,
    x_pixel: NDArray[np.float64],
    y_pixel: NDArray[np.float64],
    found_x_pixel: NDArray[np.float64],
    found_y_pixel: NDArray[np.float64],
) -> float:
    """Root mean square distance of found from planted displacements over all frames and places, each track's mean
    removed.

    `x_pixel`, `y_pixel`: (places,) of frame 0. `found_x_pixel`, `found_y_pixel`: (frames, places), where the specimen
    at each place is displaced to in each frame.
    """
    pixel = truth.parameters.pixel_size_angstrom
    local = [
        local_displacement_angstrom(truth.parameters, frame, x_pixel, y_pixel)
        for frame in range(truth.parameters.frames)
    ]
    planted = np.array([truth.shift_x_angstrom, truth.shift_y_angstrom]).T[:, :, np.newaxis] + np.array(local)
    difference = pixel * np.stack([found_x_pixel, found_y_pixel], axis=1) - planted
    difference -= difference.mean(axis=0)
    return float(np.sqrt((difference**2).sum(axis=1).mean()))


def pick_f1(truth: MovieTruth, picks: PickResult) -> float:
    """F1 of the picks against the planted particles, matched one to one."""
    planted = np.column_stack([truth.particle_x_pixel, truth.particle_y_pixel]).reshape(-1, 2)
    found = np.array([(p.x_pixel, p.y_pixel) for p in picks.picks]).reshape(-1, 2)
    if not len(planted) or not len(found):
        return float(len(planted) == len(found))
    reach = _MATCH_DIAMETERS * truth.particle_diameter_angstrom / truth.parameters.pixel_size_angstrom
    distances = cdist(planted, found)
    rows, columns = linear_sum_assignment(np.minimum(distances, 2 * reach))
    matched = int((distances[rows, columns] <= reach).sum())
    return 2 * matched / (len(planted) + len(found))


def astigmatism_error_angstrom(truth: MovieTruth, ctf: CtfResult) -> float:
    """Length of the difference of the two astigmatisms as vectors ((U − V), 2 × angle): a wrong angle of a small
    astigmatism weighs little."""
    parameters = truth.parameters

    def vector(u: float, v: float, angle_degrees: float) -> complex:
        angle = 2 * math.radians(angle_degrees)
        return complex((u - v) * math.cos(angle), (u - v) * math.sin(angle))

    planted = vector(parameters.defocus_u_angstrom, parameters.defocus_v_angstrom, parameters.defocus_angle_degrees)
    return abs(planted - vector(ctf.defocus_u_angstrom, ctf.defocus_v_angstrom, ctf.defocus_angle_degrees))


def _motion(truth: MovieTruth, motion: MotionResult | None) -> Check:
    error = math.inf if motion is None else track_error_angstrom(truth, motion)
    steps = np.hypot(np.diff(truth.shift_x_angstrom), np.diff(truth.shift_y_angstrom))
    found = "–" if motion is None else f"{motion.total_motion_angstrom:.1f}"
    return _check("motion, Å", f"{steps.sum():.1f}", found, error, MOTION_TOLERANCE_ANGSTROM)


def _defocus(truth: MovieTruth, ctf: CtfResult | None) -> Check:
    planted = (truth.parameters.defocus_u_angstrom + truth.parameters.defocus_v_angstrom) / 2
    if ctf is None:
        return _check("defocus, Å", f"{planted:.0f}", "–", math.inf, DEFOCUS_TOLERANCE_ANGSTROM)
    found = (ctf.defocus_u_angstrom + ctf.defocus_v_angstrom) / 2
    return _check("defocus, Å", f"{planted:.0f}", f"{found:.0f}", abs(found - planted), DEFOCUS_TOLERANCE_ANGSTROM)


def _astigmatism(truth: MovieTruth, ctf: CtfResult | None) -> Check:
    parameters = truth.parameters
    difference = parameters.defocus_u_angstrom - parameters.defocus_v_angstrom
    planted = f"{difference:.0f} at {parameters.defocus_angle_degrees:.0f}°"
    if ctf is None:
        return _check("astigmatism, Å", planted, "–", math.inf, ASTIGMATISM_TOLERANCE_ANGSTROM)
    found = f"{ctf.defocus_u_angstrom - ctf.defocus_v_angstrom:.0f} at {ctf.defocus_angle_degrees:.0f}°"
    error = astigmatism_error_angstrom(truth, ctf)
    return _check("astigmatism, Å", planted, found, error, ASTIGMATISM_TOLERANCE_ANGSTROM)


def _particles(truth: MovieTruth, picks: PickResult | None) -> Check:
    planted = str(len(truth.particle_x_pixel))
    if picks is None:
        return _check("particles (1 − F1)", planted, "–", math.inf, 1 - PICK_F1_TOLERANCE)
    return _check(
        "particles (1 − F1)", planted, str(len(picks.picks)), 1 - pick_f1(truth, picks), 1 - PICK_F1_TOLERANCE
    )


def _check(name: str, planted: str, found: str, error: float, tolerance: float) -> Check:
    return Check(name, planted, found, error, tolerance, error <= tolerance)
