//! The drawn parts: roofline and timeline, as SVG inside the page.

use std::collections::BTreeMap;

use super::sections::{Group, groups};
use super::{escape, figure, section};
use crate::facts::Phase;
use crate::record::{Op, RunRecord};

/// The roofline's drawing area; small, so that its text stays legible when a phone shrinks the picture.
const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 340.0;
const LEFT: f64 = 44.0;
const RIGHT: f64 = 448.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 296.0;
/// Roof labels closer than this share a line.
const LABEL_GAP: f64 = 14.0;

/// Whole decades around the values, at least one wide.
fn decades(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values.filter(|v| *v > 0.0) {
        (low, high) = (low.min(value.log10().floor()), high.max(value.log10().ceil()));
    }
    if low > high { (0.0, 1.0) } else { (low, high.max(low + 1.0)) }
}

struct Frame {
    x: (f64, f64),
    y: (f64, f64),
}

impl Frame {
    fn x(&self, v: f64) -> f64 {
        LEFT + (v.log10() - self.x.0) / (self.x.1 - self.x.0) * (RIGHT - LEFT)
    }

    fn y(&self, v: f64) -> f64 {
        BOTTOM - (v.log10() - self.y.0) / (self.y.1 - self.y.0) * (BOTTOM - TOP)
    }
}

fn text(x: f64, y: f64, anchor: &str, class: &str, body: &str) -> String {
    format!(
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" class=\"{class}\" font-size=\"12\">{}</text>\n",
        escape(body)
    )
}

fn line(class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) -> String {
    format!("<path class=\"{class}\" d=\"M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}\"/>\n")
}

fn decade(exponent: f64) -> String {
    let value = 10f64.powf(exponent);
    match exponent {
        e if (0.0..=4.0).contains(&e) => format!("{value:.0}"),
        -1.0 => "0.1".to_owned(),
        -2.0 => "0.01".to_owned(),
        -3.0 => "0.001".to_owned(),
        e => format!("1e{e:.0}"),
    }
}

fn axes(frame: &Frame) -> String {
    let mut svg = String::new();
    let (mut x, mut y) = (frame.x.0, frame.y.0);
    while x <= frame.x.1 {
        let at = frame.x(10f64.powf(x));
        svg.push_str(&line("grid", (at, TOP), (at, BOTTOM)));
        // The last label ends at the edge instead of leaving the picture.
        let anchor = if x + 1.0 > frame.x.1 { "end" } else { "middle" };
        svg.push_str(&text(at, BOTTOM + 15.0, anchor, "soft", &decade(x)));
        x += 1.0;
    }
    while y <= frame.y.1 {
        let at = frame.y(10f64.powf(y));
        svg.push_str(&line("grid", (LEFT, at), (RIGHT, at)));
        svg.push_str(&text(LEFT - 6.0, at + 4.0, "end", "soft", &decade(y)));
        y += 1.0;
    }
    svg.push_str(&line("axis", (LEFT, BOTTOM), (RIGHT, BOTTOM)));
    svg.push_str(&line("axis", (LEFT, TOP), (LEFT, BOTTOM)));
    let middle = f64::midpoint(LEFT, RIGHT);
    svg.push_str(&text(middle, HEIGHT - 8.0, "middle", "soft", "useful operations per byte of DRAM traffic"));
    let centre = f64::midpoint(TOP, BOTTOM);
    svg.push_str(&format!(
        "<text transform=\"translate(11 {centre:.1}) rotate(-90)\" text-anchor=\"middle\" class=\"soft\" \
         font-size=\"12\">useful TOPS</text>\n"
    ));
    svg
}

fn roofs(frame: &Frame, slope: f64, peaks: &[(String, f64)]) -> String {
    let mut svg = String::new();
    let (x_low, x_high, y_low) = (10f64.powf(frame.x.0), 10f64.powf(frame.x.1), 10f64.powf(frame.y.0));
    let highest = peaks.last().map_or(0.0, |p| p.1);
    if slope > 0.0 {
        let start = x_low.max(y_low / slope);
        let end = if highest > 0.0 { (highest / slope).min(x_high) } else { x_high };
        let at = |v: f64| (frame.x(v), frame.y(v * slope));
        svg.push_str(&line("line", at(start), at(end)));
        let (x, y) = at(start * (end / start).powf(0.62));
        svg.push_str(&text(x - 8.0, y - 2.0, "end", "", &format!("DRAM {}", figure(slope * 1e3, "GB/s"))));
    }
    // Lowest first: a label stands above the highest line of its group.
    let mut labels: Vec<(f64, Vec<String>)> = Vec::new();
    for (format, peak) in peaks {
        let start = if slope > 0.0 { (peak / slope).clamp(x_low, x_high) } else { x_low };
        let y = frame.y(*peak);
        svg.push_str(&line("line", (frame.x(start), y), (RIGHT, y)));
        let label = format!("{format} {}", figure(*peak, ""));
        match labels.last_mut() {
            Some((at, texts)) if *at - y < LABEL_GAP => {
                *at = y;
                texts.insert(0, label);
            }
            _ => labels.push((y, vec![label])),
        }
    }
    for (y, texts) in labels {
        svg.push_str(&text(RIGHT - 2.0, y - 5.0, "end", "", &format!("{} TOPS", texts.join(", "))));
    }
    svg
}

/// Operations per byte and TOPS of a group.
fn at(g: &Group) -> (f64, f64) {
    (2.0 * g.macs / g.bytes, 2.0 * g.macs / g.time_s / 1e12)
}

pub(super) fn roofline(r: &RunRecord) -> String {
    let points: Vec<_> =
        groups(r).into_iter().filter(|(_, g)| g.macs > 0.0 && g.bytes > 0.0 && g.time_s > 0.0).collect();
    let slope = r.dram.peak_gb_per_s / 1e3;
    let mut peaks: Vec<(String, f64)> =
        r.efficiency.peak_tops.iter().filter(|(_, v)| **v > 0.0).map(|(k, v)| (k.clone(), *v)).collect();
    peaks.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
    let ridge = peaks.iter().filter(|_| slope > 0.0).map(|(_, peak)| peak / slope * 4.0);
    let frame = Frame {
        x: decades(points.iter().map(|(_, g)| at(g).0).chain(ridge)),
        y: decades(points.iter().map(|(_, g)| at(g).1).chain(peaks.iter().map(|(_, peak)| peak * 1.3))),
    };
    let mut svg = axes(&frame) + &roofs(&frame, slope, &peaks);
    let mut key = String::new();
    for (index, ((phase, kind), group)) in points.iter().enumerate().rev() {
        let (intensity, tops) = at(group);
        let (x, y, number, phase) = (frame.x(intensity), frame.y(tops), index + 1, phase.word());
        svg.push_str(&format!(
            "<g><title>{phase} {}: {} TOPS at {} operations per byte</title><circle class=\"{phase}\" cx=\"{x:.1}\" \
             cy=\"{y:.1}\" r=\"8.5\"/><text class=\"dot-text\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" \
             font-size=\"10\">{number}</text></g>\n",
            escape(kind),
            figure(tops, ""),
            figure(intensity, ""),
            y + 3.5
        ));
    }
    for (index, ((phase, kind), group)) in points.iter().enumerate() {
        let phase = phase.word();
        key.push_str(&format!(
            "<li><b class=\"{phase}\">{}</b>{phase} {}<em>{}</em></li>\n",
            index + 1,
            escape(kind),
            figure(group.time_s, "s")
        ));
    }
    let body = format!(
        "<div class=\"roof\"><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"Roofline\">\n{svg}</svg>\n\
         <ol>\n{key}</ol></div>\n"
    );
    let lead = "One point per kind of op and phase, numbered by time spent. Under the slope memory limits, under a flat \
                roof the arrays do. Ops that reuse data on chip may stand to the right.";
    section("roofline", "Roofline", lead, &body)
}

/// The pass an op belongs to: `chunk0`, `token2`, or nothing where names have no pass.
fn pass(op: &Op) -> &str {
    let first = op.name.split('.').next().unwrap_or("");
    if first.starts_with("chunk") || first.starts_with("token") { first } else { "" }
}

/// Whether an op is of the first two layers.
fn early(op: &Op) -> bool {
    op.name.split('.').any(|part| part == "layer0" || part == "layer1")
}

/// Lanes by kind over a span of time.
fn lanes(title: &str, ops: &[&Op]) -> String {
    let start = ops.iter().map(|o| o.start_s).fold(f64::INFINITY, f64::min);
    let end = ops.iter().map(|o| o.start_s + o.duration_s).fold(f64::NEG_INFINITY, f64::max);
    let span = end - start;
    if ops.is_empty() || span <= 0.0 {
        return String::new();
    }
    let mut kinds: Vec<&str> = Vec::new();
    let mut rows: BTreeMap<&str, (String, f64)> = BTreeMap::new();
    for op in ops {
        if !kinds.contains(&op.kind.as_str()) {
            kinds.push(&op.kind);
        }
        let (svg, sum) = rows.entry(&op.kind).or_default();
        *sum += op.duration_s;
        svg.push_str(&format!(
            "<rect x=\"{:.2}\" y=\"0\" width=\"{:.2}\" height=\"10\"><title>{} {}</title></rect>",
            (op.start_s - start) / span * 1000.0,
            (op.duration_s / span * 1000.0).max(0.6),
            escape(&op.name),
            figure(op.duration_s, "s")
        ));
    }
    let mut html = format!("<h3>{}</h3>\n<div class=\"lanes\">\n", escape(title));
    for (index, kind) in kinds.iter().enumerate() {
        let (svg, sum) = &rows[kind];
        html.push_str(&format!(
            "<div class=\"lane\"><span>{}</span><svg class=\"c{}\" viewBox=\"0 0 1000 10\" \
             preserveAspectRatio=\"none\" style=\"background:none!important\">{svg}</svg><em>{}</em></div>\n",
            escape(kind),
            [0, 2, 3, 4, 6, 8, 7, 1, 5][index % 9],
            figure(*sum, "s")
        ));
    }
    let ticks: String =
        (0..=4).map(|i| format!("<span>{}</span>", figure(start + span * f64::from(i) / 4.0, "s"))).collect();
    html.push_str(&format!(
        "<div class=\"lane\"><span></span><div class=\"ticks\">{ticks}</div><em></em></div>\n</div>\n"
    ));
    html
}

pub(super) fn timeline(r: &RunRecord) -> String {
    let mut body = String::new();
    for (phase, what) in [(Phase::Prefill, "First prefill chunk"), (Phase::Decode, "First token of decode")] {
        let Some(first) = r.ops.iter().find(|o| o.phase == phase) else { continue };
        let ops: Vec<&Op> = r.ops.iter().filter(|o| o.phase == phase && pass(o) == pass(first)).collect();
        let zoom: Vec<&Op> = ops.iter().copied().filter(|o| early(o)).collect();
        body.push_str(&lanes(what, &ops));
        if zoom.len() * 2 < ops.len() {
            body.push_str(&lanes(&format!("{what}: first two layers"), &zoom));
        }
    }
    let lead = "When ops of each kind ran, counted from the prompt doorbell; the figure at the right is their summed time.";
    section("timeline", "Timeline", lead, &body)
}
