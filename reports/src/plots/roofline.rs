//! The roofline: useful operations per second against useful operations per byte of external memory, log-log.

use std::collections::BTreeMap;

use super::canvas::{Anchor, Canvas, FAINT, Face, INK, SERIES, SOFT, pixel, shortened};
use crate::error::WriteError;
use crate::facts::Phase;
use crate::record::RunRecord;
use crate::summary::quantity;

const SIZE: (u32, u32) = (1020, 620);
const LEFT: i32 = 84;
const TOP: i32 = 92;
const BOTTOM: i32 = 540;
/// The plot ends here; the key stands to the right of it.
const RIGHT: i32 = 700;
const KEY: i32 = 722;
/// Points named in the key; the rest is drawn without a name.
const KEYED: usize = 18;
/// Characters of a kind's name that fit into the key.
const KIND_CHARACTERS: usize = 22;
/// Roofs closer than this many pixels share a label.
const ROOF_GAP: i32 = 22;

/// All ops of one kind in one phase.
struct Point {
    kind: String,
    phase: Phase,
    intensity: f64,
    tops: f64,
    duration_s: f64,
}

/// Decades shown on both axes.
struct Frame {
    x: (i32, i32),
    y: (i32, i32),
}

impl Frame {
    fn at(&self, intensity: f64, tops: f64) -> (i32, i32) {
        let along =
            |value: f64, (low, high): (i32, i32)| (value.log10() - f64::from(low)) / f64::from(high - low);
        (
            LEFT + pixel(along(intensity, self.x) * f64::from(RIGHT - LEFT)),
            BOTTOM - pixel(along(tops, self.y) * f64::from(BOTTOM - TOP)),
        )
    }
}

fn points(record: &RunRecord) -> Vec<Point> {
    let mut sums: BTreeMap<(&str, Phase), (f64, f64, f64)> = BTreeMap::new();
    for op in &record.ops {
        let s = sums.entry((&op.kind, op.phase)).or_default();
        s.0 += 2.0 * op.macs as f64;
        s.1 += op.dram_bytes as f64;
        s.2 += op.duration_s;
    }
    let mut points: Vec<Point> = sums
        .into_iter()
        .filter(|(_, (operations, bytes, time))| *operations > 0.0 && *bytes > 0.0 && *time > 0.0)
        .map(|((kind, phase), (operations, bytes, time))| Point {
            kind: kind.to_owned(),
            phase,
            intensity: operations / bytes,
            tops: operations / time / 1e12,
            duration_s: time,
        })
        .collect();
    points.sort_by(|a, b| b.duration_s.total_cmp(&a.duration_s).then_with(|| a.kind.cmp(&b.kind)));
    points
}

/// Whole decades around the values, at least one wide.
fn decades(values: impl Iterator<Item = f64>) -> (i32, i32) {
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values {
        (low, high) = (low.min(value.log10()), high.max(value.log10()));
    }
    if low > high {
        return (0, 1);
    }
    let (low, high) = (pixel(low.floor()), pixel(high.ceil()));
    (low, high.max(low + 1))
}

/// Draws the roofline of a record.
pub(super) fn draw(record: &RunRecord, subtitle: &str) -> Result<String, WriteError> {
    let points = points(record);
    // Bandwidth in TB/s times operations per byte is TOPS.
    let slope = record.dram.peak_gb_per_s / 1e3;
    let roofs: Vec<(&str, f64)> = record
        .efficiency
        .peak_tops
        .iter()
        .filter(|(_, v)| **v > 0.0)
        .map(|(k, v)| (k.as_str(), *v))
        .collect();
    // Roofs are labelled over their right ends: leave them a decade.
    let ridges = roofs.iter().filter(|_| slope > 0.0).map(|(_, peak)| peak / slope * 10.0);
    let x = decades(points.iter().map(|p| p.intensity).chain(ridges));
    // The roof's label stands above its line: leave it room inside the top decade.
    let y = decades(points.iter().map(|p| p.tops).chain(roofs.iter().map(|(_, peak)| peak * 1.3)));
    let frame = Frame { x, y };
    let mut text = String::new();
    let mut canvas = Canvas::new("roofline", &mut text, SIZE);
    canvas.text((24, 34), "Roofline", Anchor::Left, Face::new(22, INK));
    canvas.text((24, 62), subtitle, Anchor::Left, Face::new(14, SOFT));
    axes(&mut canvas, &frame);
    draw_roofs(&mut canvas, &frame, slope, &roofs);
    draw_points(&mut canvas, &frame, &points);
    canvas.finish()?;
    Ok(text)
}

fn decade_text(exponent: i32) -> String {
    match exponent {
        0..=4 => format!("{:.0}", 10f64.powi(exponent)),
        -4..=-1 => format!("{:.*}", usize::try_from(-exponent).unwrap_or(0), 10f64.powi(exponent)),
        _ => format!("1e{exponent}"),
    }
}

fn axes(canvas: &mut Canvas<'_>, frame: &Frame) {
    for exponent in frame.x.0..=frame.x.1 {
        let x = frame.at(10f64.powi(exponent), 1.0).0;
        canvas.line(&[(x, TOP), (x, BOTTOM)], FAINT, 1);
        canvas.text((x, BOTTOM + 8), &decade_text(exponent), Anchor::Top, Face::new(13, SOFT));
    }
    for exponent in frame.y.0..=frame.y.1 {
        let y = frame.at(1.0, 10f64.powi(exponent)).1;
        canvas.line(&[(LEFT, y), (RIGHT, y)], FAINT, 1);
        canvas.text((LEFT - 8, y), &decade_text(exponent), Anchor::Right, Face::new(13, SOFT));
    }
    canvas.line(&[(LEFT, TOP), (LEFT, BOTTOM), (RIGHT, BOTTOM)], INK, 1);
    let middle = i32::midpoint(LEFT, RIGHT);
    let axis = "useful operations per byte of DRAM traffic";
    canvas.text((middle, BOTTOM + 34), axis, Anchor::Top, Face::new(14, INK));
    let turned = Face { turned: true, ..Face::new(14, INK) };
    canvas.text((20, i32::midpoint(TOP, BOTTOM)), "useful TOPS", Anchor::Top, turned);
}

fn draw_roofs(canvas: &mut Canvas<'_>, frame: &Frame, slope: f64, roofs: &[(&str, f64)]) {
    let (x_low, x_high) = (10f64.powi(frame.x.0), 10f64.powi(frame.x.1));
    let y_low = 10f64.powi(frame.y.0);
    let highest = roofs.iter().map(|r| r.1).fold(0.0, f64::max);
    if slope > 0.0 {
        let start = x_low.max(y_low / slope);
        let end = if highest > 0.0 { (highest / slope).min(x_high) } else { x_high };
        canvas.line(&[frame.at(start, start * slope), frame.at(end, end * slope)], INK, 2);
        let along = start * (end / start).powf(0.7);
        let (x, y) = frame.at(along, along * slope);
        let label = format!("DRAM {}", quantity(slope * 1e3, "GB/s"));
        // To the left of a rising line there is nothing at the same height.
        canvas.text((x - 14, y), &label, Anchor::Right, Face::new(13, INK));
    }
    let mut by_height: Vec<_> = roofs.to_vec();
    by_height.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(b.0)));
    // From the lowest up: a label stands above the highest line of its group, where the next group has left room.
    let mut labels: Vec<(i32, Vec<String>)> = Vec::new();
    for (format, peak) in by_height {
        let start = if slope > 0.0 { (peak / slope).clamp(x_low, x_high) } else { x_low };
        let (from, to) = (frame.at(start, peak), frame.at(x_high, peak));
        canvas.line(&[from, to], INK, 2);
        let text = format!("{format} {}", quantity(peak, ""));
        match labels.last_mut() {
            Some((y, texts)) if *y - to.1 < ROOF_GAP => {
                *y = to.1;
                texts.insert(0, text);
            }
            _ => labels.push((to.1, vec![text])),
        }
    }
    for (y, texts) in labels {
        canvas.text(
            (RIGHT - 6, y - 11),
            &format!("{} TOPS", texts.join(", ")),
            Anchor::Right,
            Face::new(13, INK),
        );
    }
}

fn draw_points(canvas: &mut Canvas<'_>, frame: &Frame, points: &[Point]) {
    let colour = |phase: Phase| match phase {
        Phase::Prefill => SERIES[0],
        Phase::Decode => SERIES[1],
    };
    for (phase, y) in [(Phase::Prefill, TOP), (Phase::Decode, TOP + 22)] {
        canvas.dot((KEY + 6, y), 6, colour(phase));
        canvas.text((KEY + 18, y), phase.word(), Anchor::Left, Face::new(14, INK));
    }
    canvas.text((KEY, TOP + 54), "by time spent", Anchor::Left, Face::new(13, SOFT));
    // Numbers sit inside the dots; the key spells them out, so crowded points stay readable.
    for (index, point) in points.iter().enumerate().rev() {
        let number = index + 1;
        let at = frame.at(point.intensity, point.tops);
        if number > KEYED {
            canvas.dot(at, 5, colour(point.phase));
            continue;
        }
        canvas.dot(at, 10, colour(point.phase));
        let white = Face::new(11, plotters::style::RGBColor(255, 255, 255));
        canvas.text((at.0, at.1 - 5), &number.to_string(), Anchor::Top, white);
        let row = TOP + 54 + 21 * i32::try_from(number).unwrap_or(0);
        canvas.dot((KEY + 8, row), 9, colour(point.phase));
        canvas.text((KEY + 8, row - 5), &number.to_string(), Anchor::Top, white);
        let label =
            format!("{} {}", shortened(&point.kind, KIND_CHARACTERS), quantity(point.duration_s, "s"));
        canvas.text((KEY + 24, row), &label, Anchor::Left, Face::new(13, INK));
    }
}
