//! Two figures of many points against each other, the best of them numbered and spelled out beside the plot.

use plotters::style::RGBColor;

use super::canvas::{Anchor, Canvas, FAINT, Face, INK, SERIES, SOFT, pixel, shortened};
use crate::error::WriteError;
use crate::summary::quantity;

const SIZE: (u32, u32) = (1080, 620);
const LEFT: i32 = 96;
const TOP: i32 = 92;
const BOTTOM: i32 = 540;
/// The plot ends here; the key stands to the right of it.
const RIGHT: i32 = 700;
const KEY: i32 = 722;
/// Points of the front spelled out in the key.
const KEYED: usize = 17;
/// Characters of a name that fit into the key.
const NAME_CHARACTERS: usize = 46;
/// Points that keep the constraints and points that do not.
const PALE: RGBColor = RGBColor(178, 184, 192);
/// About so many steps an axis.
const STEPS: f64 = 6.0;

/// How a point stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// Breaks a constraint.
    Infeasible,
    /// Keeps them all, but another point beats it.
    Feasible,
    /// No point beats it.
    Front,
}

impl Mark {
    const fn colour(self) -> RGBColor {
        match self {
            Self::Infeasible => PALE,
            Self::Feasible => SERIES[0],
            Self::Front => SERIES[1],
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Infeasible => "breaks a constraint",
            Self::Feasible => "beaten by another",
            Self::Front => "on the front",
        }
    }
}

/// One axis.
#[derive(Clone, Debug)]
pub struct ScatterAxis {
    /// Name, with the unit where it has one.
    pub label: String,
    /// The unit, for the numbers along it.
    pub unit: &'static str,
    /// Which way is better, in words; empty where neither is.
    pub better: &'static str,
}

/// One point.
#[derive(Clone, Debug)]
pub struct ScatterPoint {
    /// Its number.
    pub number: usize,
    /// Along.
    pub x: f64,
    /// Up.
    pub y: f64,
    /// How it stands.
    pub mark: Mark,
    /// What it is.
    pub name: String,
}

/// A scatter plot.
#[derive(Clone, Debug)]
pub struct Scatter {
    /// Title.
    pub title: String,
    /// Second line.
    pub subtitle: String,
    /// Axis to the right.
    pub x: ScatterAxis,
    /// Axis upwards.
    pub y: ScatterAxis,
    /// Whether the front is a line in these two figures: true where nothing else was wanted.
    pub joined: bool,
    /// Points.
    pub points: Vec<ScatterPoint>,
}

/// From a figure to its place on the sheet.
struct Scale {
    low: f64,
    step: f64,
    steps: i32,
}

impl Scale {
    /// Round numbers around the values.
    fn around(values: impl Iterator<Item = f64> + Clone) -> Self {
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        if low > high {
            return Self { low: 0.0, step: 1.0, steps: 1 };
        }
        // One value, or values that differ in rounding only, sit in the middle of a tenth of themselves.
        let spread = (high - low).max(high.abs().max(low.abs()) * 0.02).max(f64::MIN_POSITIVE * 1e6);
        let decade = 10f64.powi(pixel((spread / STEPS).log10().floor()));
        let step = [1.0, 2.0, 5.0, 10.0]
            .map(|m| m * decade)
            .into_iter()
            .find(|s| *s * STEPS >= spread)
            .unwrap_or(decade);
        let first = (low / step - 0.2).floor();
        let last = (high / step + 0.2).ceil();
        Self { low: first * step, step, steps: pixel(last - first).max(1) }
    }

    fn along(&self, value: f64) -> f64 {
        (value - self.low) / (self.step * f64::from(self.steps))
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        (0..=self.steps).map(|i| self.low + f64::from(i) * self.step)
    }

    /// A tick's number: as many places as the step needs, prefixed where it would be long.
    fn text(&self, value: f64, unit: &str) -> String {
        if self.step >= 1e4 || self.step < 1e-4 {
            return quantity(value, unit);
        }
        let places = usize::try_from(pixel(-self.step.log10().floor())).unwrap_or(0);
        let text = format!("{value:.places$}");
        // Rounding may leave a negative zero.
        if text.trim_start_matches('-').chars().all(|c| matches!(c, '0' | '.')) {
            "0".to_owned()
        } else {
            text
        }
    }
}

fn at(x: &Scale, y: &Scale, point: (f64, f64)) -> (i32, i32) {
    (
        LEFT + pixel(x.along(point.0) * f64::from(RIGHT - LEFT)),
        BOTTOM - pixel(y.along(point.1) * f64::from(BOTTOM - TOP)),
    )
}

impl Scatter {
    /// The plot as SVG text.
    ///
    /// # Errors
    /// When the backend refuses to draw.
    pub fn draw(&self) -> Result<String, WriteError> {
        let x = Scale::around(self.points.iter().map(|p| p.x));
        let y = Scale::around(self.points.iter().map(|p| p.y));
        let mut text = String::new();
        let mut canvas = Canvas::new("scatter", &mut text, SIZE);
        canvas.text((24, 34), &self.title, Anchor::Left, Face::new(22, INK));
        canvas.text((24, 62), &self.subtitle, Anchor::Left, Face::new(14, SOFT));
        self.axes(&mut canvas, &x, &y);
        self.draw_points(&mut canvas, &x, &y);
        self.key(&mut canvas);
        canvas.finish()?;
        Ok(text)
    }

    fn axes(&self, canvas: &mut Canvas<'_>, x: &Scale, y: &Scale) {
        for tick in x.ticks() {
            let (column, _) = at(x, y, (tick, y.low));
            canvas.line(&[(column, TOP), (column, BOTTOM)], FAINT, 1);
            let label = x.text(tick, self.x.unit);
            canvas.text((column, BOTTOM + 8), &label, Anchor::Top, Face::new(13, SOFT));
        }
        for tick in y.ticks() {
            let (_, row) = at(x, y, (x.low, tick));
            canvas.line(&[(LEFT, row), (RIGHT, row)], FAINT, 1);
            let label = y.text(tick, self.y.unit);
            canvas.text((LEFT - 8, row), &label, Anchor::Right, Face::new(13, SOFT));
        }
        canvas.line(&[(LEFT, TOP), (LEFT, BOTTOM), (RIGHT, BOTTOM)], INK, 1);
        let label = |axis: &ScatterAxis| match axis.better {
            "" => axis.label.clone(),
            better => format!("{}, {better}", axis.label),
        };
        let middle = i32::midpoint(LEFT, RIGHT);
        canvas.text((middle, BOTTOM + 34), &label(&self.x), Anchor::Top, Face::new(14, INK));
        let turned = Face { turned: true, ..Face::new(14, INK) };
        canvas.text((20, i32::midpoint(TOP, BOTTOM)), &label(&self.y), Anchor::Top, turned);
        if self.points.is_empty() {
            canvas.text((LEFT + 12, TOP + 16), "nothing to show", Anchor::Left, Face::new(14, SOFT));
        }
    }

    fn draw_points(&self, canvas: &mut Canvas<'_>, x: &Scale, y: &Scale) {
        let mut front: Vec<(i32, i32)> = self.on_front().map(|p| at(x, y, (p.x, p.y))).collect();
        front.sort_unstable();
        if self.joined && front.len() > 1 {
            canvas.line(&front, Mark::Front.colour(), 1);
        }
        // The front last, so that nothing hides it.
        let mut points: Vec<&ScatterPoint> = self.points.iter().collect();
        points.sort_by_key(|p| p.mark);
        for point in points {
            let place = at(x, y, (point.x, point.y));
            if point.mark == Mark::Front && point.number < 1000 {
                numbered(canvas, place, point.number);
            } else {
                canvas.dot(place, 6, point.mark.colour());
            }
        }
    }

    fn on_front(&self) -> impl Iterator<Item = &ScatterPoint> {
        self.points.iter().filter(|p| p.mark == Mark::Front)
    }

    fn key(&self, canvas: &mut Canvas<'_>) {
        let mut row = TOP;
        for mark in [Mark::Front, Mark::Feasible, Mark::Infeasible] {
            if self.points.iter().any(|p| p.mark == mark) {
                canvas.dot((KEY + 8, row), 6, mark.colour());
                canvas.text((KEY + 24, row), mark.word(), Anchor::Left, Face::new(14, INK));
                row += 22;
            }
        }
        row += 12;
        for point in self.on_front().take(KEYED) {
            numbered(canvas, (KEY + 8, row), point.number);
            let name = shortened(&point.name, NAME_CHARACTERS);
            canvas.text((KEY + 24, row), &name, Anchor::Left, Face::new(13, INK));
            row += 22;
        }
        let more = self.on_front().count().saturating_sub(KEYED);
        if more > 0 {
            canvas.text((KEY + 24, row), &format!("and {more} more"), Anchor::Left, Face::new(13, SOFT));
        }
    }
}

fn numbered(canvas: &mut Canvas<'_>, (x, y): (i32, i32), number: usize) {
    canvas.dot((x, y), 10, Mark::Front.colour());
    let white = Face::new(11, RGBColor(255, 255, 255));
    canvas.text((x, y - 5), &number.to_string(), Anchor::Top, white);
}

#[cfg(test)]
mod tests {
    use super::{Mark, Scale, Scatter, ScatterAxis, ScatterPoint};

    fn plot(points: &[(f64, f64, Mark)]) -> String {
        let axis =
            |label: &str| ScatterAxis { label: label.to_owned(), unit: "s", better: "lower is better" };
        Scatter {
            title: "Sweep".to_owned(),
            subtitle: String::new(),
            x: axis("Time (s)"),
            y: axis("Energy (J)"),
            joined: true,
            points: (0..)
                .zip(points)
                .map(|(number, &(x, y, mark))| ScatterPoint {
                    number,
                    x,
                    y,
                    mark,
                    name: format!("design {number}"),
                })
                .collect(),
        }
        .draw()
        .expect("a plot")
    }

    #[test]
    fn scales_are_round_and_hold_all_values() {
        for values in [
            vec![0.51, 0.93],
            vec![3.0],
            vec![0.0],
            vec![-2.0, 7e9],
            vec![1e-9, 3e-9],
            vec![5.0, 5.000_000_1],
        ] {
            let scale = Scale::around(values.iter().copied());
            for value in &values {
                assert!((0.0..=1.0).contains(&scale.along(*value)), "{values:?}");
            }
            let ticks = scale.ticks().count();
            assert!((2..=10).contains(&ticks), "{values:?}: {ticks} ticks");
        }
    }

    #[test]
    fn the_front_is_named_and_the_rest_is_not() {
        let svg = plot(&[
            (1.0, 4.0, Mark::Front),
            (2.0, 5.0, Mark::Feasible),
            (3.0, 1.0, Mark::Front),
            (9.0, 9.0, Mark::Infeasible),
        ]);
        for wanted in [
            "Time (s), lower is better",
            "Energy (J), lower is better",
            "design 0",
            "design 2",
            "on the front",
        ] {
            assert!(svg.contains(wanted), "{wanted}");
        }
        assert!(!svg.contains("design 1") && !svg.contains("design 3"));
        assert_eq!(svg.matches("<circle").count() % 2, 0, "each dot has its rim");
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn odd_sets_of_points_can_be_drawn() {
        assert!(plot(&[]).contains("nothing to show"));
        assert!(plot(&[(0.0, 0.0, Mark::Front)]).contains("design 0"));
        let many: Vec<_> = (0..1500).map(|i| (f64::from(i), f64::from(-i), Mark::Front)).collect();
        assert!(plot(&many).contains("and 1483 more"));
    }
}
