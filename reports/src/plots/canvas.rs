//! A pixel canvas over the SVG backend: lines, boxes, dots and anchored text in one palette.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::error::WriteError;

/// Colours that stay apart in print and for most colour-blind readers (Okabe and Ito's set).
pub(super) const SERIES: [RGBColor; 2] = [RGBColor(0, 114, 178), RGBColor(213, 94, 0)];
/// Text and axes.
pub(super) const INK: RGBColor = RGBColor(34, 40, 49);
/// Secondary text.
pub(super) const SOFT: RGBColor = RGBColor(96, 104, 116);
/// Grid.
pub(super) const FAINT: RGBColor = RGBColor(226, 230, 235);

/// Where a text hangs on its point.
#[derive(Clone, Copy)]
pub(super) enum Anchor {
    /// The point is at its left, vertically centred.
    Left,
    /// The point is at its right, vertically centred.
    Right,
    /// The point is above its middle.
    Top,
}

/// Size and colour of a text.
#[derive(Clone, Copy)]
pub(super) struct Face {
    pub(super) size: i32,
    pub(super) colour: RGBColor,
    pub(super) turned: bool,
}

impl Face {
    pub(super) const fn new(size: i32, colour: RGBColor) -> Self {
        Self { size, colour, turned: false }
    }
}

/// A drawing in progress; the first refusal is kept and returned at the end.
pub(super) struct Canvas<'a> {
    area: DrawingArea<SVGBackend<'a>, Shift>,
    plot: &'static str,
    refused: Option<String>,
}

impl<'a> Canvas<'a> {
    /// A white sheet of the given size that draws into `text`.
    pub(super) fn new(plot: &'static str, text: &'a mut String, size: (u32, u32)) -> Self {
        let area = SVGBackend::with_string(text, size).into_drawing_area();
        let refused = area.fill(&WHITE).err().map(|e| e.to_string());
        Self { area, plot, refused }
    }

    fn keep<E: std::fmt::Display>(&mut self, outcome: Result<(), E>) {
        if let (None, Err(e)) = (&self.refused, outcome) {
            self.refused = Some(e.to_string());
        }
    }

    pub(super) fn line(&mut self, points: &[(i32, i32)], colour: RGBColor, width: u32) {
        let path = PathElement::new(points.to_vec(), colour.stroke_width(width));
        let outcome = self.area.draw(&path);
        self.keep(outcome);
    }

    pub(super) fn bar(&mut self, corner: (i32, i32), opposite: (i32, i32), colour: RGBColor) {
        let outcome = self.area.draw(&Rectangle::new([corner, opposite], colour.filled()));
        self.keep(outcome);
    }

    pub(super) fn dot(&mut self, at: (i32, i32), radius: i32, colour: RGBColor) {
        let outcome = self.area.draw(&Circle::new(at, radius, colour.filled()));
        self.keep(outcome);
        let outcome = self.area.draw(&Circle::new(at, radius, WHITE.stroke_width(1)));
        self.keep(outcome);
    }

    pub(super) fn text(&mut self, at: (i32, i32), text: &str, anchor: Anchor, face: Face) {
        let position = match anchor {
            Anchor::Left => Pos::new(HPos::Left, VPos::Center),
            Anchor::Right => Pos::new(HPos::Right, VPos::Center),
            Anchor::Top => Pos::new(HPos::Center, VPos::Top),
        };
        let turn = if face.turned { FontTransform::Rotate270 } else { FontTransform::None };
        // The backend writes a font 1.24 times smaller than asked.
        let font = ("sans-serif", f64::from(face.size) * 1.24).into_font().transform(turn);
        let style = TextStyle::from(font).color(&face.colour).pos(position);
        let outcome = self.area.draw(&Text::new(text.to_owned(), at, style));
        self.keep(outcome);
    }

    /// Ends the drawing.
    pub(super) fn finish(mut self) -> Result<(), WriteError> {
        let outcome = self.area.present();
        self.keep(outcome);
        match self.refused.take() {
            None => Ok(()),
            Some(reason) => Err(WriteError::Plot { plot: self.plot, reason }),
        }
    }
}

/// The nearest pixel.
#[allow(clippy::cast_possible_truncation, reason = "clamped to a sheet's size first")]
pub(super) fn pixel(value: f64) -> i32 {
    value.round().clamp(-10_000.0, 10_000.0) as i32
}

/// A name cut in its middle where it has more than `most` characters, since both ends tell names apart.
pub(super) fn shortened(name: &str, most: usize) -> String {
    let characters: Vec<char> = name.chars().collect();
    if characters.len() <= most {
        return name.to_owned();
    }
    let (head, tail) = (most / 2 - 1, most / 2 - 2);
    let head: String = characters[..head].iter().collect();
    let tail: String = characters[characters.len() - tail..].iter().collect();
    format!("{head}...{tail}")
}
