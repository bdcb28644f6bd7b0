//! Horizontal bars with names to the left, values to the right, and room for both.

use super::canvas::{Anchor, Canvas, FAINT, Face, INK, SERIES, SOFT, pixel, shortened};
use crate::error::WriteError;
use crate::summary::quantity;

const WIDTH: i32 = 960;
/// Room for names; longer ones are cut.
const LEFT: i32 = 230;
/// Room for the value and its share behind the longest bar.
const RIGHT: i32 = 170;
const TOP: i32 = 104;
const BOTTOM: i32 = 44;
const ROW: i32 = 34;
const THICKNESS: i32 = 22;
/// Characters that fit into `LEFT` at the size of names.
const NAME_CHARACTERS: usize = 28;

/// One bar, stacked from one part per series.
pub(super) struct Bar {
    pub(super) name: String,
    pub(super) parts: Vec<f64>,
}

impl Bar {
    pub(super) fn sum(&self) -> f64 {
        self.parts.iter().sum()
    }
}

/// A chart of bars in one unit.
pub(super) struct BarChart {
    pub(super) plot: &'static str,
    pub(super) title: String,
    pub(super) subtitle: String,
    pub(super) unit: &'static str,
    pub(super) series: Vec<&'static str>,
    pub(super) bars: Vec<Bar>,
}

impl BarChart {
    pub(super) fn draw(&self) -> Result<String, WriteError> {
        let rows = i32::try_from(self.bars.len().max(1)).unwrap_or(i32::MAX / ROW);
        let height = TOP + rows * ROW + BOTTOM;
        let mut text = String::new();
        let mut canvas = Canvas::new(self.plot, &mut text, (WIDTH.unsigned_abs(), height.unsigned_abs()));
        canvas.text((24, 34), &self.title, Anchor::Left, Face::new(22, INK));
        canvas.text((24, 62), &self.subtitle, Anchor::Left, Face::new(14, SOFT));
        self.legend(&mut canvas);
        let longest = self.bars.iter().map(Bar::sum).fold(0.0, f64::max);
        let step = round_step(longest / 6.0);
        let scale = f64::from(WIDTH - LEFT - RIGHT) / if longest > 0.0 { longest } else { 1.0 };
        self.axis(&mut canvas, (longest, step, scale), height - BOTTOM);
        let total: f64 = self.bars.iter().map(Bar::sum).sum();
        for (i, bar) in (0i32..).zip(&self.bars) {
            self.row(&mut canvas, bar, (TOP + i * ROW, scale, total));
        }
        canvas.finish()?;
        Ok(text)
    }

    fn legend(&self, canvas: &mut Canvas<'_>) {
        if self.series.len() < 2 {
            return;
        }
        for (i, (name, colour)) in (0i32..).zip(self.series.iter().zip(SERIES)) {
            let x = LEFT + i * 110;
            canvas.bar((x, 80), (x + 12, 92), colour);
            canvas.text((x + 18, 86), name, Anchor::Left, Face::new(14, INK));
        }
    }

    fn axis(&self, canvas: &mut Canvas<'_>, (longest, step, scale): (f64, f64, f64), bottom: i32) {
        if longest > 0.0 {
            let mut tick = 0u32;
            while f64::from(tick) * step <= longest * 1.000_001 {
                let value = f64::from(tick) * step;
                let x = LEFT + pixel(value * scale);
                canvas.line(&[(x, TOP - 4), (x, bottom)], FAINT, 1);
                canvas.text((x, bottom + 8), &tick_text(value, self.unit), Anchor::Top, Face::new(13, SOFT));
                tick += 1;
            }
        } else {
            canvas.text((LEFT + 12, TOP + ROW / 2), "nothing recorded", Anchor::Left, Face::new(14, SOFT));
        }
        canvas.line(&[(LEFT, TOP - 4), (LEFT, bottom)], INK, 1);
    }

    fn row(&self, canvas: &mut Canvas<'_>, bar: &Bar, (top, scale, total): (i32, f64, f64)) {
        let (y, middle) = (top + (ROW - THICKNESS) / 2, top + ROW / 2);
        let mut from = 0.0;
        for (part, colour) in bar.parts.iter().zip(SERIES) {
            let (left, right) = (LEFT + pixel(from * scale), LEFT + pixel((from + part) * scale));
            if right > left {
                canvas.bar((left, y), (right, y + THICKNESS), colour);
            }
            from += part;
        }
        canvas.text(
            (LEFT - 10, middle),
            &shortened(&bar.name, NAME_CHARACTERS),
            Anchor::Right,
            Face::new(14, INK),
        );
        let share = if total > 0.0 { 100.0 * bar.sum() / total } else { 0.0 };
        let label = format!("{} ({share:.1} %)", quantity(bar.sum(), self.unit));
        canvas.text((LEFT + pixel(from * scale) + 8, middle), &label, Anchor::Left, Face::new(14, INK));
    }
}

fn tick_text(value: f64, unit: &str) -> String {
    if value == 0.0 {
        return String::from("0");
    }
    // A round step needs no trailing zeros.
    let text = quantity(value, unit);
    let (number, unit) = text.split_once(' ').unwrap_or((&text, ""));
    let number =
        if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number };
    format!("{number} {unit}")
}

/// The next of 1, 2 or 5 times a power of ten.
fn round_step(least: f64) -> f64 {
    if least <= 0.0 {
        return 1.0;
    }
    let decade = 10f64.powi(pixel(least.log10().floor()));
    [1.0, 2.0, 5.0].into_iter().map(|m| m * decade).find(|step| *step >= least).unwrap_or(10.0 * decade)
}
