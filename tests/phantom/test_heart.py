"""The phantom's anatomy: labels are measures of the solid, and it moves as hearts do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.metrics import r2_score
from sklearn.model_selection import cross_val_predict

from echojepa.phantom import PhantomConfig
from echojepa.phantom.anatomy.chamber import Chamber, WallMotion
from echojepa.phantom.anatomy.cycle import Cycle, Phase, draw_rhythm
from echojepa.phantom.anatomy.heart import Heart
from echojepa.phantom.anatomy.patient import TERRITORIES
from echojepa.phantom.clip import patient_number, study_patient
from echojepa.phantom.view.views import STANDARD_VIEWS, VIEWS, draw_plane

CONFIG = PhantomConfig(num_studies=1)
SCARRED = CONFIG.model_copy(update={"wall_motion_fraction": 1.0})
END_DIASTOLE, END_SYSTOLE = Phase(0.0, 0.0, 0.0, 0.0), Phase(1.0, 0.0, 0.0, 0.0)


def hearts(config: PhantomConfig, count: int) -> list[Heart]:
    """Hearts of the first studies."""
    return [study_patient(config, study).heart for study in range(count)]


def counted_ml(chamber: Chamber, share: float) -> float:
    """Volume inside of a layer (0 cavity, 1 wall and cavity), by counting points of a grid."""
    step = 0.1
    reach = float(chamber.shape.outer_cm.max()) + 0.5
    steps = np.arange(-reach, reach, step)
    heights = np.arange(-0.5, chamber.shape.height_cm + 0.5, step) + 0.3 * step
    grid = np.stack(np.meshgrid(steps, steps, heights, indexing="ij"), axis=-1).reshape(-1, 3)
    return float((chamber.distance_cm(grid, share) < 0.0).sum() * step**3)


@pytest.mark.parametrize("study", range(4))
def test_labels_are_volumes_of_the_solid(study: int) -> None:
    heart = hearts(SCARRED, study + 1)[study]
    edv, esv = (counted_ml(heart.at(p).chambers["lv"], 0.0) for p in (END_DIASTOLE, END_SYSTOLE))
    assert edv == pytest.approx(heart.labels["edv_ml"], rel=0.01)
    assert esv == pytest.approx(heart.labels["esv_ml"], rel=0.01)
    assert 100.0 * (edv - esv) / edv == pytest.approx(heart.labels["lvef"], abs=0.75)


def test_muscle_is_neither_gained_nor_lost() -> None:
    for heart in hearts(CONFIG, 3):
        chambers = [heart.at(Phase(out, 0, 0, 0)).chambers["lv"] for out in (0.0, 0.5, 1.0)]
        walls = [counted_ml(chamber, 1.0) - counted_ml(chamber, 0.0) for chamber in chambers]
        assert np.ptp(walls) < 0.02 * walls[0]


def thickness_cm(heart: Heart, phase: Phase, angle: float) -> float:
    """Of the left ventricle's wall at mid-level, between two pieces."""
    lv = heart.at(phase).chambers["lv"]
    at = np.full(2, angle), np.full(2, 0.5 * lv.shape.height_cm), np.array([0.0, 1.0])
    inner, outer = lv.positions(lv.pieces(*at))
    return float(np.linalg.norm(outer - inner))


def test_walls_thicken_in_systole_and_scars_do_not() -> None:
    usual = replace(hearts(CONFIG, 1)[0], ejection_fraction=60.0, shortening=0.15, motion=None)
    assert thickness_cm(usual, END_DIASTOLE, 0.0) == pytest.approx(usual.labels["wall_cm"])
    thickening = thickness_cm(usual, END_SYSTOLE, 0.0) / thickness_cm(usual, END_DIASTOLE, 0.0)
    assert 1.3 < thickening < 2.0
    scar, _ = TERRITORIES["lateral"]
    scarred = replace(usual, ejection_fraction=40.0, motion=WallMotion(scar, 0.5, 1.1))
    across = scar + np.pi
    dead, alive = (
        thickness_cm(scarred, END_SYSTOLE, angle) / thickness_cm(scarred, END_DIASTOLE, angle)
        for angle in (scar, across)
    )
    assert dead < 1.2 and alive > 1.35, "a scar only gains what the shortening gives it"


def test_the_heart_twists_and_shortens() -> None:
    for heart in hearts(CONFIG, 5):
        lv, rest = heart.at(END_SYSTOLE).chambers["lv"], heart.rest.chambers["lv"]
        height = np.array([0.15, 0.95]) * rest.shape.height_cm
        pieces = rest.pieces(np.zeros(2), height, np.ones(2))
        turn = np.arctan2(*lv.positions(pieces)[:, 1::-1].T)
        expected = heart.twist_rad * heart.ejection_fraction / 60.0
        # Seen from the apex, y points down: negative angles turn against the clock.
        assert turn[0] < 0.0 < turn[1]
        assert turn[0] - turn[1] == pytest.approx(-0.8 * expected, rel=0.01)
        base, base_before = (h.at(p).valves["mitral"].center_cm[2] for h, p in (
            (heart, END_SYSTOLE), (heart, END_DIASTOLE)))  # fmt: skip
        assert base / base_before == pytest.approx(1.0 - heart.shortening, rel=1e-6)


def test_tapse_is_the_way_of_the_tricuspid_ring() -> None:
    for heart in hearts(CONFIG, 5):
        before, after = (
            heart.at(p).valves["tricuspid"].center_cm[2] for p in (END_DIASTOLE, END_SYSTOLE)
        )
        assert before - after == pytest.approx(heart.labels["tapse_cm"])
        rv = heart.at(END_SYSTOLE).chambers["rv"]
        assert rv.stretch * rv.shape.height_cm + rv.shape.origin_cm[2] == pytest.approx(after)


def test_pressure_is_half_the_septums_and_half_the_right_ventricles() -> None:
    drawn = hearts(CONFIG, 1500)
    pressure = np.array([heart.labels["rvsp"] for heart in drawn])
    flat = np.array([heart.septal_flattening for heart in drawn])
    wide = np.array([heart.rv_dilation for heart in drawn])
    assert 20.0 <= pressure.min() < 25.0 and 75.0 < pressure.max() <= 84.0
    for alone in (flat, wide):
        assert 0.35 < np.corrcoef(alone, pressure)[0, 1] ** 2 < 0.65
    two = np.linalg.lstsq(np.stack([flat, wide, np.ones(1500)], axis=1), pressure)[0]
    assert two == pytest.approx([80.0, 32.0, 20.0])


def cut(heart: Heart, view: str) -> list[float]:
    """What a textbook view shows of both ventricles, end-diastole and end-systole."""
    plane = VIEWS[view].plane(heart, np.random.default_rng(0))
    steps = np.arange(-9.0, 9.0, 0.25) * heart.size
    image = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    points = plane.to_heart(image, 0.0)
    found = []
    for phase in (END_DIASTOLE, END_SYSTOLE):
        chambers = heart.at(phase).chambers
        lv = chambers["lv"].distance_cm(points, 0.0) < 0.0
        rv = chambers["rv"].distance_cm(points, 0.0) < 0.0
        rv &= chambers["lv"].distance_cm(points, 1.0) > 0.0
        spread = image[lv].std(axis=0) / np.sqrt(lv.sum() + 1.0)
        found += [lv.mean(), rv.mean(), *spread]
    return found


@pytest.mark.integration
def test_views_show_their_half_of_the_pressure() -> None:
    """Read off plane cuts by boosted trees: about half from one view, more from two."""
    drawn = hearts(CONFIG.model_copy(update={"follow_up_fraction": 0.0}), 600)
    pressure = np.array([heart.labels["rvsp"] for heart in drawn])
    seen = {view: np.array([cut(heart, view) for heart in drawn]) for view in ("PSAX-PM", "A4C")}
    seen["both"] = np.concatenate(list(seen.values()), axis=1)
    explained = {}
    for name, features in seen.items():
        trees = HistGradientBoostingRegressor(max_iter=200, learning_rate=0.05, max_leaf_nodes=8)
        said = cross_val_predict(trees, features, pressure, cv=5)
        explained[name] = r2_score(pressure, said)
    print({name: round(found, 2) for name, found in explained.items()})
    assert max(explained["PSAX-PM"], explained["A4C"]) < 0.6
    assert explained["both"] > max(explained["PSAX-PM"], explained["A4C"]) + 0.1


def test_flattening_and_dilation_are_seen_where_they_should_be() -> None:
    usual = replace(hearts(CONFIG, 1)[0], septal_flattening=0.0, rv_dilation=0.0)

    def septal_radius(heart: Heart) -> float:
        """Of the cavity towards the septum, as a share of that towards the lateral wall."""
        lv = heart.at(END_SYSTOLE).chambers["lv"]
        height = np.full(2, 0.5 * lv.shape.height_cm)
        angles = np.array([lv.shape.flat_angle_rad, lv.shape.flat_angle_rad + np.pi])
        septal, lateral = np.linalg.norm(
            lv.positions(lv.pieces(angles, height, np.zeros(2)))[:, :2], axis=1
        )
        return float(septal / lateral)

    def rv_area(heart: Heart) -> float:
        """Points of the right ventricle's cavity in the four-chamber plane."""
        x, z = np.meshgrid(np.arange(-9.0, 1.0, 0.1), np.arange(0.0, 12.0, 0.1))
        points = np.stack([x.ravel(), np.zeros(x.size), z.ravel()], axis=1)
        anatomy = heart.rest
        inside = anatomy.chambers["rv"].distance_cm(points, 0.0) < 0.0
        return float((inside & (anatomy.chambers["lv"].distance_cm(points, 1.0) > 0.0)).sum())

    flat, wide = replace(usual, septal_flattening=0.35), replace(usual, rv_dilation=0.8)
    assert septal_radius(flat) < septal_radius(usual) - 0.2
    assert septal_radius(wide) == pytest.approx(septal_radius(usual))
    assert rv_area(wide) > 1.3 * rv_area(usual)


def test_patients_cover_the_stated_ranges() -> None:
    drawn = [study_patient(CONFIG, study) for study in range(600)]
    labels = [patient.heart.labels for patient in drawn]
    fractions, rates = ([one[name] for one in labels] for name in ("lvef", "heart_rate"))
    assert 14.99 < min(fractions) < 17 and 73 < max(fractions) < 75.01
    assert 45 <= min(rates) < 50 and 140 < max(rates) <= 170
    assert {p.population for p in drawn} == {"adult", "paediatric", "obese"}
    assert {p.wall_motion for p in drawn} == {"normal", *TERRITORIES}
    assert {p.rhythm for p in drawn} == {"sinus", "fibrillation"}
    children = [p.heart for p in drawn if p.population == "paediatric"]
    adults = [p.heart for p in drawn if p.population == "adult"]
    assert np.median([h.size for h in children]) < 0.8 * np.median([h.size for h in adults])
    rates = [np.median([h.cycle.heart_rate for h in group]) for group in (children, adults)]
    assert rates[0] > 1.2 * rates[1]


def test_a_later_study_is_of_the_same_heart_in_another_state() -> None:
    config = CONFIG.model_copy(update={"follow_up_fraction": 0.9, "seed": 3})
    follow_ups = [study for study in range(200) if patient_number(config, study)[1]]
    assert len(follow_ups) > 100
    for study in follow_ups:
        first, later = study_patient(config, study - 1).heart, study_patient(config, study).heart
        assert patient_number(config, study)[0] == patient_number(config, study - 1)[0]
        assert first.edv_ml == later.edv_ml and first.size == later.size
        assert first.cycle.heart_rate != later.cycle.heart_rate


@pytest.mark.parametrize("rate", [45.0, 70.0, 110.0, 160.0])
def test_every_beat_empties_and_refills(rate: float) -> None:
    cycle = Cycle(rate, early_share=0.7)
    times = np.linspace(0.0, cycle.beat_seconds, 500, endpoint=False)
    emptying, opening = cycle.emptying(times), cycle.inflow_opening(times)
    assert cycle.emptying(0.0) == 0.0
    assert cycle.emptying(cycle.systole_seconds) == pytest.approx(1.0)
    assert emptying.min() >= 0.0 and emptying.max() <= 1.0
    assert np.abs(np.diff(emptying)).max() < 0.05
    assert opening[times < cycle.systole_seconds].max() == 0.0 and opening.max() > 0.9
    assert not (opening * cycle.outflow_opening(times)).any(), "never both at once"
    without_atria = Cycle(rate, early_share=1.0).inflow_opening(times)
    late = times > cycle.beat_seconds - 0.2 * (cycle.beat_seconds - cycle.systole_seconds)
    assert opening[late].max() > 0.6 > 0.36 > without_atria[late].max()
    assert (np.diff(without_atria[times > times[without_atria.argmax()]]) <= 0.0).all()


def test_beats_vary_and_strong_beats_follow_long_pauses() -> None:
    rng = np.random.default_rng(0)
    spans = {}
    for name, variability in (("sinus", 0.03), ("fibrillation", 0.2)):
        rhythm = draw_rhythm(Cycle(75.0, 0.7), variability, (-10.0, 400.0), rng)
        assert rhythm.starts[0] < -10.0 and 0.0 in rhythm.starts and rhythm.starts[-1] > 400.0
        lengths = np.diff(rhythm.starts)
        spans[name] = lengths.std() / lengths.mean()
        assert np.corrcoef(lengths[:-1], rhythm.strokes[1:-1])[0, 1] > 0.8
        assert rhythm.strokes.mean() == pytest.approx(1.0, abs=0.06)
    assert spans["sinus"] == pytest.approx(0.03, rel=0.2)
    assert spans["fibrillation"] == pytest.approx(0.2, rel=0.2)


def test_planes_cut_what_their_names_say() -> None:
    for heart in hearts(CONFIG.model_copy(update={"paediatric_fraction": 0.5}), 12):
        rng = np.random.default_rng(0)

        def off(
            view: str, valve: str, heart: Heart = heart, rng: np.random.Generator = rng
        ) -> float:
            """Distance of a valve's centre from a textbook plane, in radii of its ring."""
            plane = VIEWS[view].plane(heart, rng)
            where = heart.rest.valves[valve]
            point = np.asarray(where.center_cm)[None]
            return float(abs(plane.to_image(point, 0.0)[0, 2])) / where.radius_cm

        assert off("A4C", "mitral") < 0.7 and off("A4C", "tricuspid") < 0.3
        assert off("A4C", "aortic") > 0.6 and off("A5C", "aortic") < 0.4
        assert off("A3C", "aortic") < 0.3 and off("A2C", "aortic") > 0.5
        assert off("PLAX", "aortic") < 0.3 and off("PLAX", "mitral") < 0.3
        levels = [
            float(VIEWS[f"PSAX-{level}"].plane(heart, rng).probe_cm[2])
            for level in ("AP", "PM", "MV", "AV")
        ]
        base = heart.rest.valves["mitral"].center_cm[2]
        assert levels == sorted(levels) and levels[2] < base < levels[3]


def test_no_two_tries_at_a_view_are_alike_and_others_are_far_from_all() -> None:
    heart = hearts(CONFIG, 1)[0]
    rng = np.random.default_rng(1)
    tries = [draw_plane("A4C", heart, 1.0, rng) for _ in range(200)]
    textbook = VIEWS["A4C"].plane(heart, rng).axes
    tilts = [np.rad2deg(np.arccos(min(float(p.axes[2] @ textbook[2]), 1.0))) for p in tries]
    rocks = [np.rad2deg(np.arccos(min(float(p.axes[1] @ textbook[1]), 1.0))) for p in tries]
    assert 4.0 < np.median(tilts) < 9.0 and 4.0 < np.median(rocks) < 9.0
    for _ in range(50):
        normal = VIEWS["OTHER"].plane(heart, rng).axes[2]
        for view in STANDARD_VIEWS:
            assert abs(normal @ VIEWS[view].plane(heart, rng).axes[2]) < np.cos(np.deg2rad(27.9))
